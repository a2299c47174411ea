package departments

import (
	"reflect"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
)

const good = `{"reference":"PAY 24","description":"Période 24","effective_on":"2026-11-20","or_next_open":true,"lines":[` +
	`{"account":"expenses:pay-roll:2","amount_cents":125,"dimensions":{"department":"water","fund":"1","cost_centre":"4300","order":"","wbs":"A-1","channel":"web","tender":"card"}},` + "\r\n" +
	`{"account":"liabilities:payroll","amount_cents": -125}]} `

// wayOfTheLibrary reads a body as the library would.
func wayOfTheLibrary(a *API, body []byte) (*NewEntry, []error) {
	var parsed any
	if err := readJSON(body, &parsed); err != nil {
		return nil, []error{err}
	}
	res := new(huma.ValidateResult)
	huma.Validate(a.huma.OpenAPI().Components.Schemas, a.entrySchema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, parsed, res)
	e := new(NewEntry)
	if err := readJSON(body, e); err != nil {
		res.Errors = append(res.Errors, err)
	}
	return e, res.Errors
}

// The quick way takes what uploads look like; otherwise it would be of no use.
func TestTheQuickWayIsTaken(t *testing.T) {
	a := New(chi.NewRouter(), Parts{BaseURL: "https://pay.example.ca"})
	got, ok := quickEntry([]byte(good))
	want, faults := wayOfTheLibrary(a, []byte(good))
	if !ok || len(faults) > 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v, %v", got, ok, want, faults)
	}
}

// FuzzQuick: what the quick way takes, the document takes too, and with the same content.
func FuzzQuick(f *testing.F) {
	a := New(chi.NewRouter(), Parts{BaseURL: "https://pay.example.ca"})
	f.Add([]byte(good))
	for old, replacement := range map[string]string{
		"PAY 24": " PAY", `"PAY 24"`: `"PAY 24","reference":"x"`, "Période": "P\u0085", "24\"": "\\u0000\"", "2026-11-20": "2026-02-30", "true": "truefalse", "true,": "1,",
		"125,": "0,", "-125": "-0125", " -125": " - 125", "expenses": "expense", "pay-roll": "-pay", ":2": ":", "125}": "1e2}", "4300": "43 00",
		"]}": "]},", "[": "[[", "fund": "colour", "\r\n": ",", "lines": "line", "water": strings.Repeat("w", 41),
	} {
		f.Add([]byte(strings.Replace(good, old, replacement, 1)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := quickEntry(body)
		if !ok {
			return
		}
		want, faults := wayOfTheLibrary(a, body)
		if len(faults) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v; the library has %+v and refuses %v", body, got, want, faults)
		}
	})
}
