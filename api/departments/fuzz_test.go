package departments_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"guichet/api/departments"
	"guichet/internal/id"
)

// FuzzRequest sends what strangers may send, with a good key: the answer is never an
// error of ours, and every error is a problem document.
func FuzzRequest(f *testing.F) {
	w := newWorld(f)
	own := w.create(f).ID
	fine, err := json.Marshal(w.fine())
	must(f, err)
	f.Add("POST", "/bills", "", "key", "application/json", fine)
	f.Add("POST", "/bills", "", "key", "application/json", bytes.Replace(fine, []byte("fine"), []byte{0xff, 0}, 1))
	f.Add("POST", "/bills", "", "key", "application/json", []byte(`{"lines":[{"amount_cents":1e400}]}`))
	f.Add("POST", "/bills", "", "key", "application/json", []byte(`{"lines":[{"quantity":-9223372036854775809,"amount_cents":1.0}]}`))
	f.Add("POST", "/checkouts", "", "key", "application/json", []byte(`{"bills":[{},[]]}`))
	f.Add("POST", "/checkouts", "", "key", "application/json", []byte(`{"bills":["`+own+`"],"return_url":"https://[::1%25x]:99999999/"}`))
	f.Add("POST", "/bills/"+own+"/cancel", "", "key", "application/json", []byte(`{"reason":"\ud800\u0000"}`))
	f.Add("GET", "/bills", "owner=%ff&cursor="+own+"&limit=1e1", "", "", []byte(nil))
	f.Add("GET", "/bills", "limit=%zz;;&state", "", "", []byte(nil))
	f.Add("GET", "/bills/"+strings.ToUpper(own), "", "", "", []byte(nil))
	f.Add("GET", "/checkouts/%2e%2e%00", "", "\xff", "\xff", []byte("x"))
	entry, err := json.Marshal(payroll())
	must(f, err)
	f.Add("POST", "/journal-entries", "", "key", "application/json", entry)
	f.Add("POST", "/journal-entries", "", "key", "application/json", bytes.Replace(entry, []byte("1250"), []byte("9223372036854775807"), 1))
	f.Add("POST", "/journal-entries/batch", "results=each", "", "application/x-ndjson", append(entry, "\n[]\n{}\nnull"...))
	f.Add("GET", "/journal-entries", "idempotency_key=%00", "", "", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path, query, key, contentType string, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, departments.Prefix+"/", bytes.NewReader(body))
		r.Method = method
		r.URL.Path, r.URL.RawQuery = departments.Prefix+path, query
		who := "parking"
		if strings.HasPrefix(path, "/journal-entries") {
			who = "parking journal"
		}
		r.Header = http.Header{"Authorization": {"Bearer " + w.keys[who]}, "Idempotency-Key": {key}, "Content-Type": {contentType}}
		rec := httptest.NewRecorder()
		w.routes.ServeHTTP(rec, r)
		if rec.Code >= 500 {
			t.Fatalf("status %d: %s", rec.Code, rec.Body)
		}
		if known := method == http.MethodGet || method == http.MethodPost; known && strings.HasPrefix(path, "/") && rec.Code >= 400 {
			answer{rec.Code, rec.Header(), rec.Body.String()}.problem(t)
		}
	})
}

// FuzzNewBill sends bills that the types accept and the rules may not.
func FuzzNewBill(f *testing.F) {
	w := newWorld(f)
	f.Add("fine", "T-1", "CKAB 123", "2026-06-01", "2026-06-16", "parking-wrong-way", int64(1), int64(0), "Fine", "Amende")
	f.Add("fine", "é", "-", "0000-01-01", "9999-12-31", "water-consumption", int64(10000), int64(1000000000), "\x00", "\u0085")
	f.Add("a", "\xff", "\u2028", "2198-12-31", "2198-12-31", "no-such-fee", int64(-1), int64(1), "", " ")
	f.Fuzz(func(t *testing.T, kind, reference, guestKey, issued, due, feeCode string, quantity, amount int64, en, fr string) {
		line := object{"fee": feeCode, "description": object{"en": en, "fr": fr}, "quantity": quantity}
		if amount != 0 {
			line["amount_cents"] = amount
		}
		a := w.call(t, request{method: "POST", path: "/bills", department: "parking", key: id.New(), body: object{
			"type": kind, "reference": reference, "guest_key": guestKey, "issued_on": issued, "due_on": due, "lines": []any{line, line},
		}})
		switch a.status {
		case 201:
			if b := as[departments.Bill](t, a, 201); b.Reference != reference || b.Type != kind || b.Lines[1].DescriptionFR != fr || b.IssuedOn != issued {
				t.Errorf("stored another bill than was sent: %s", a.body)
			}
		case 409, 422: // the reference may be there already
		default:
			t.Errorf("status %d: %s", a.status, a.body)
		}
	})
}
