package sap

// accountKind says how an account may be posted to.
type accountKind int

const (
	balanceSheet accountKind = iota // no cost object
	taxAccount                      // only by tax items
	profitLoss                      // exactly one cost object
)

type account struct {
	Name string
	kind accountKind
}

const companyCode = "1000"

// The master data of this SAP; the package comment shows it as a table.
var (
	accounts = map[string]account{
		"0000101000": {"Bank", balanceSheet},
		"0000210500": {"HST payable", taxAccount},
		"0000219000": {"Suspense", balanceSheet},
		"0000430100": {"Fines revenue", profitLoss},
		"0000430200": {"Permits revenue", profitLoss},
		"0000430300": {"Water revenue", profitLoss},
		"0000550100": {"Processor fees", profitLoss},
	}
	costCentres = map[string]string{
		"0000004100": "Parking",
		"0000004200": "Permits",
		"0000004300": "Water",
		"0000004900": "Central",
	}
	// taxRates in percent.
	taxRates      = map[string]int64{"A0": 0, "A1": 13}
	documentTypes = map[string]bool{"SA": true, "DZ": true, "AB": true}
	idocTypes     = map[string]bool{"ACC_DOCUMENT03": true, "ACC_DOCUMENT04": true, "ACC_DOCUMENT05": true}
)

// maxItems is FI's limit of lines in a document (F5 727).
const maxItems = 999
