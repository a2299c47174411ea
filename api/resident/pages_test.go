package resident

import (
	"net/url"
	"testing"
	"time"

	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/identity/delegation"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/payments/fee"
)

var (
	today = clock.Date{Year: 2026, Month: time.December, Day: 1}
	noon  = time.Date(2026, 12, 1, 17, 0, 0, 0, time.UTC)
)

func sampleBill(state bill.State, lines int) bill.Bill {
	b := bill.Bill{
		ID: "01930000-0000-7000-8000-000000000001", DepartmentID: "d", DepartmentEN: "Parking and by-law fines",
		DepartmentFR: "Stationnement et contraventions", Notice: "7K3M92QXD1", State: state, Reference: "PV-118204",
		IssuedOn: today.AddDays(-5), DueOn: today.AddDays(10), EarlyUntil: today.AddDays(10), UpdatedAt: noon,
	}
	for i := range lines {
		b.Lines = append(b.Lines, bill.Line{
			Line: i + 1, DescriptionEN: "Parked facing the wrong way", DescriptionFR: "Stationné dans le mauvais sens",
			Quantity: i + 1, Net: 5500, Step: 2000, Tax: money.Amount(i * 715), TaxCode: fee.None,
		})
	}
	return b
}

func sampleCheckout() payments.Checkout {
	c := payments.Checkout{ID: "01930000-0000-7000-8000-000000000002", State: "open"}
	for i, state := range []bill.State{bill.Open, bill.Open, bill.Paid, bill.Cancelled} {
		b := sampleBill(state, i+1)
		if i == 1 {
			b.BeingPaidUntil, b.BeingPaidBy = noon.Add(time.Minute), "another"
		}
		c.Bills = append(c.Bills, payments.DueBill{Bill: b, Quote: b.Quote(today)})
	}
	lapsed := sampleBill(bill.Open, 2)
	lapsed.EarlyUntil = today.AddDays(-1)
	c.Bills = append(c.Bills, payments.DueBill{Bill: lapsed, Quote: lapsed.Quote(today)})
	return c
}

func sampleReceipt() payments.Receipt {
	return payments.Receipt{Number: 1042, ID: "r", VerifyCode: "7K3M92QX4B6TWZ0P", IssuedAt: noon, Document: payments.Document{
		PaymentReference: "R4T7YQ2M9A", Tender: "card", CardBrand: "visa", CardLast4: "4242", PaidAt: noon, Amount: 7619,
		Departments: []payments.ReceiptDepartment{{
			NameEN: "Permits", NameFR: "Permis", HSTNumber: "00000 0000 RT0001", Net: 5000, Tax: 619,
			Lines: []payments.ReceiptLine{
				{Notice: "7K3M92QXD1", Reference: "PV", DescriptionEN: "Inspection", DescriptionFR: "Inspection", Quantity: 2, Net: 5000, Tax: 619},
				{Notice: "7K3M92QXD1", Reference: "PV", DescriptionEN: "Fee", DescriptionFR: "Droit", Quantity: 1},
			},
		}},
		Credits: []payments.ReceiptCredit{{Notice: "5GQ0M8D2XK", Amount: 2000}},
	}}
}

func failed(field, key string) *web.Form {
	f := &web.Form{Values: url.Values{field: {"typed"}}}
	f.Fail(field, key)
	return f
}

func sampleRight() delegation.Delegation {
	return delegation.Delegation{
		ID: "right", Role: delegation.Delegate, State: "live", Delegate: "Léa",
		Party: delegation.Party{ID: "party", Type: delegation.Business, Name: "Boulangerie Démo", Number: "100000009", Proof: delegation.Declared},
		Scope: delegation.Scope{Rights: delegation.Rights(), PerPayment: 5000, Until: today},
	}
}

func boxes(rights []delegation.Right) (list []choiceOf) {
	for _, r := range rights {
		list = append(list, choiceOf{Value: string(r), Checked: true})
	}
	return list
}

func TestPages(t *testing.T) {
	looks := sampleRight()
	looks.Scope.Rights = []delegation.Right{delegation.ViewBills}
	var history []delegation.Entry
	for _, did := range []string{"created", "invited", "accepted", "declined", "used", "revoked", "registered", "refused", "expired"} {
		history = append(history, delegation.Entry{At: noon, Action: "delegation." + did, Actor: "Léa"})
	}
	paid, cancelled := sampleBill(bill.Paid, 1), sampleBill(bill.Cancelled, 1)
	overdue := sampleBill(bill.Open, 3)
	c := sampleCheckout()
	var blocked, plain, resumed, tried reviewPage
	blocked.fill(c, noon)
	c.Bills = c.Bills[:1]
	plain.fill(c, noon)
	c.Payment = &payments.Payment{State: payments.Pending}
	resumed.fill(c, noon)
	c.Payment = &payments.Payment{State: payments.Failed}
	tried.fill(c, noon)
	tried.Form, tried.Unanswered = failed("email", "resident.review.email_bad"), true
	plain.MayPay, blocked.MayPay, resumed.MayPay, tried.MayPay = true, true, true, true
	looking := plain
	looking.MayPay = false
	known := plain
	known.Email = "resident@demo.example"
	receipt := sampleReceipt()
	payment := &payments.Payment{Reference: "R4T7YQ2M9A", Amount: 7619, SucceededAt: noon}
	webtest.Room(t, "resident", files, webtest.Samples{
		"resident/welcome": {findPage{}},
		"resident/find":    {findPage{}, findPage{Form: failed("notice", "resident.find.notice_slip")}, findPage{Done: &paid}, findPage{Done: &cancelled}},
		"resident/home": {homePage{}, homePage{Form: failed("bills", "resident.home.choose_one"), Choices: 2, Total: 11000, Receipts: []payments.Receipt{receipt}, Bills: []owed{
			{Bill: sampleBill(bill.Open, 1), Quote: sampleBill(bill.Open, 1).Quote(today), Soon: true},
			{Bill: overdue, Quote: overdue.Quote(today), Overdue: true},
			{Bill: sampleBill(bill.Open, 1), Quote: bill.Quote{Due: 1}},
			{Bill: sampleBill(bill.Open, 1), Taken: true, Checkout: "c"},
		}}, homePage{For: "Boulangerie Démo", Right: sampleRight()}, homePage{For: "Boulangerie Démo", Right: looks, Bills: []owed{
			{Bill: sampleBill(bill.Open, 1), Quote: bill.Quote{Due: 1}, Fixed: true},
		}}},
		"resident/review": {plain, blocked, resumed, tried, known, looking, reviewPage{Blocked: blocked.Blocked}},
		"resident/closed": {outcomePage{ID: "c"}, outcomePage{ID: "c", Cancelled: true}},
		"resident/receipt": {
			receiptPage{Receipt: receipt, Tender: web.Say("web.switch"), VerifyURL: "https://pay.example.ca/verify/7K3M"},
			receiptPage{Receipt: receipt, Tender: web.Say("web.switch"), PaidBy: "Léa", PaidFor: "Boulangerie Démo"},
		},
		"resident/outcome": {
			outcomePage{State: "paid", Payment: payment, Receipt: &receipt, ReturnURL: "https://permits.example.ca/back", Service: departmentDue{NameEN: "Permits", NameFR: "Permis"}},
			outcomePage{State: "paid", Payment: payment, Slow: true},
			outcomePage{State: "waiting", Payment: payment, Open: true, Waited: 9},
			outcomePage{State: "waiting", Payment: payment, Slow: true},
			outcomePage{State: "failed"},
			outcomePage{State: "failed", ReturnURL: "https://permits.example.ca/back"},
			outcomePage{State: "expired"},
		},
		"resident/verify": {
			verifyPage{},
			verifyPage{Form: failed("code", "resident.verify.slip")},
			verifyPage{Receipt: &receipt, Proof: "sealed"},
			verifyPage{Receipt: &receipt, Proof: "waiting"},
			verifyPage{Receipt: &receipt, Proof: "broken"},
		},
		"resident/acting": {actingPage{}, actingPage{Now: "right", Held: []delegation.Delegation{sampleRight(), {ID: "x", Role: delegation.Owner, Scope: delegation.Scope{MayDelegate: true}}}, Given: []delegation.Delegation{
			sampleRight(), {ID: "i", State: "invited", Invited: "a@example.ca"}, {ID: "w", State: "waiting"}, {ID: "e", State: "ended"}, {ID: "c", State: "invited"},
		}}},
		"resident/acting-right": {
			rightPage{Delegation: sampleRight(), Mine: true, Names: []string{"Parking", "Water"}, Payments: []payments.Payment{*payment}, History: history},
			rightPage{Delegation: delegation.Delegation{ID: "i", State: "invited", Invited: "a@example.ca"}},
			rightPage{Delegation: delegation.Delegation{ID: "e", State: "ended", Role: delegation.Guardian}},
		},
		"resident/acting-business": {namePage{}, namePage{failed("number", "resident.acting.bad_number")}},
		"resident/acting-child":    {namePage{}, namePage{failed("born", "resident.acting.bad_birth")}},
		"resident/acting-invite": {
			invitePage{How: "mail", Last: today, Principal: true, Rights: boxes(delegation.Rights()), Departments: []choiceOf{{"parking", "Parking", true}}},
			invitePage{How: "code", Last: today, Party: "Boulangerie Démo", Form: failed("rights", "resident.acting.no_rights")},
			invitePage{How: "code", Last: today, Form: failed("departments", "resident.acting.no_departments")},
		},
		"resident/acting-invited": {invitedPage{Email: "a@example.ca", Invited: delegation.Invited{OpenUntil: noon}}, invitedPage{Invited: delegation.Invited{Secret: "7K3M92QXD1", OpenUntil: noon}}},
		"resident/acting-code":    {offerPage{}, offerPage{Form: failed("code", "resident.acting.bad_code")}},
		"resident/acting-offer":   {offerPage{Delegation: new(sampleRight()), Inviter: "Léa", Weak: true, Proof: "/signin?level=2"}, offerPage{Delegation: new(sampleRight()), Inviter: "Léa", Code: "7K3M92QXD1"}},
		"resident/acting-ended":   {nil},
		"resident/acting-proof":   {"/signin?level=2"},
		"resident/acting-limit":   {limitPage{payments.LimitError{Limit: 5000}, "Boulangerie Démo"}, limitPage{payments.LimitError{Limit: 5000, Spent: 100, PerMonth: true}, "Boulangerie Démo"}},
	})
}

func TestReviewSortsWhatCanBePaid(t *testing.T) {
	var page reviewPage
	page.fill(sampleCheckout(), noon)
	if len(page.Departments) != 1 || len(page.Departments[0].Bills) != 2 || len(page.Rest) != 2 || len(page.Blocked) != 3 {
		t.Fatalf("%d departments, %d bills to pay, %d blocked", len(page.Departments), len(page.Rest), len(page.Blocked))
	}
	// One line at its early amount; two lines whose early days are over, one with tax.
	if want := money.Amount(5500 + 2*7500); page.Net != want || page.Tax != 715 || page.Total != want+715 {
		t.Errorf("net %s, tax %s, total %s; want %s and 7.15", page.Net, page.Tax, page.Total, want)
	}
	if !page.Blocked[0].Taken || !page.Blocked[1].WasPaid() || page.Blocked[2].WasPaid() {
		t.Errorf("blocked: taken %t, paid %t, withdrawn told as paid %t", page.Blocked[0].Taken, page.Blocked[1].WasPaid(), page.Blocked[2].WasPaid())
	}
}
