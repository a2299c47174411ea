package stripe_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	api "github.com/stripe/stripe-go/v76"
)

func TestSession(t *testing.T) {
	w := newWorld(t)
	p := w.params(11300)
	p.Locale = api.String("fr-CA")
	p.AddExpand("line_items")
	s, err := w.client.CheckoutSessions.New(p)
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "status", s.Status, api.CheckoutSessionStatusOpen)
	eq(t, "payment status", s.PaymentStatus, api.CheckoutSessionPaymentStatusUnpaid)
	eq(t, "amount", s.AmountTotal, 11300)
	eq(t, "currency", s.Currency, api.CurrencyCAD)
	eq(t, "reference", s.ClientReferenceID, "checkout-1")
	eq(t, "metadata", s.Metadata["payment"], "p1")
	eq(t, "url", s.URL, w.url+"/c/pay/"+s.ID)
	eq(t, "locale", s.Locale, "fr-CA")
	if s.PaymentIntent != nil {
		t.Errorf("payment intent = %s before anybody paid, want none", s.PaymentIntent.ID)
	}
	if len(s.LineItems.Data) != 1 || s.LineItems.Data[0].Description != "Parking fine 26-118204" || s.LineItems.Data[0].AmountTotal != 11300 {
		t.Errorf("line items = %+v", s.LineItems.Data)
	}

	t.Run("is expired once", func(t *testing.T) {
		e, err := w.client.CheckoutSessions.Expire(s.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "status", e.Status, api.CheckoutSessionStatusExpired)
		eq(t, "url", e.URL, "")
		_, err = w.client.CheckoutSessions.Expire(s.ID, nil)
		eq(t, "second expiry", code(err), "400 invalid_request_error ")
		eq(t, "events", joined(types(w.settle())), "checkout.session.expired")
	})
	t.Run("expires by itself at expires_at", func(t *testing.T) {
		s := w.session(100)
		w.move(time.Hour - time.Second)
		eq(t, "events before", joined(types(w.settle())), "")
		w.move(time.Second)
		eq(t, "status", w.read(s.ID).Status, api.CheckoutSessionStatusExpired)
		eq(t, "events", joined(types(w.settle())), "checkout.session.expired")
	})
}

func TestSessionIsRefused(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name string
		bend func(*api.CheckoutSessionParams)
		want string
	}{
		{"without mode", func(p *api.CheckoutSessionParams) { p.Mode = nil }, "400 invalid_request_error parameter_missing"},
		{"in another mode", func(p *api.CheckoutSessionParams) { p.Mode = api.String("setup") }, "400 invalid_request_error "},
		{"without lines", func(p *api.CheckoutSessionParams) { p.LineItems = nil }, "400 invalid_request_error parameter_missing"},
		{"below 50 cents", func(p *api.CheckoutSessionParams) { p.LineItems[0].PriceData.UnitAmount = api.Int64(49) }, "400 invalid_request_error amount_too_small"},
		{"above eight digits", func(p *api.CheckoutSessionParams) { p.LineItems[0].PriceData.UnitAmount = api.Int64(100_000_000) }, "400 invalid_request_error amount_too_large"},
		{"when the product overflows", func(p *api.CheckoutSessionParams) {
			p.LineItems[0].PriceData.UnitAmount = api.Int64(1 << 62)
			p.LineItems[0].Quantity = api.Int64(4)
		}, "400 invalid_request_error amount_too_large"},
		{"with a negative amount", func(p *api.CheckoutSessionParams) { p.LineItems[0].PriceData.UnitAmount = api.Int64(-100) }, "400 invalid_request_error parameter_invalid_integer"},
		{"with two currencies", func(p *api.CheckoutSessionParams) {
			other := *p.LineItems[0].PriceData
			other.Currency = api.String("usd")
			p.LineItems = append(p.LineItems, &api.CheckoutSessionLineItemParams{Quantity: api.Int64(1), PriceData: &other})
		}, "400 invalid_request_error "},
		{"when it expires within 30 minutes", func(p *api.CheckoutSessionParams) { p.ExpiresAt = api.Int64(w.clock().Add(29 * time.Minute).Unix()) }, "400 invalid_request_error "},
		{"when it expires after 24 hours", func(p *api.CheckoutSessionParams) { p.ExpiresAt = api.Int64(w.clock().Add(25 * time.Hour).Unix()) }, "400 invalid_request_error "},
		{"with a success_url that is none", func(p *api.CheckoutSessionParams) { p.SuccessURL = api.String("/done") }, "400 invalid_request_error url_invalid"},
		{"with an empty string", func(p *api.CheckoutSessionParams) { p.ClientReferenceID = api.String("") }, "400 invalid_request_error parameter_invalid_empty"},
		{"with a parameter it does not know", func(p *api.CheckoutSessionParams) { p.AllowPromotionCodes = api.Bool(true) }, "400 invalid_request_error parameter_unknown"},
		{"with a nested parameter it does not know", func(p *api.CheckoutSessionParams) {
			p.LineItems[0].PriceData.ProductData.TaxCode = api.String("txcd_1")
		}, "400 invalid_request_error parameter_unknown"},
		{"for a customer that is not there", func(p *api.CheckoutSessionParams) { p.Customer = api.String("cus_none") }, "400 invalid_request_error resource_missing"},
		{"with too much metadata", func(p *api.CheckoutSessionParams) { p.Metadata = map[string]string{"k": strings.Repeat("x", 501)} }, "400 invalid_request_error "},
		{"with a property that cannot be expanded", func(p *api.CheckoutSessionParams) { p.AddExpand("metadata") }, "400 invalid_request_error "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := w.params(1000)
			tt.bend(p)
			_, err := w.client.CheckoutSessions.New(p)
			eq(t, "error", code(err), tt.want)
		})
	}
	eq(t, "events", joined(types(w.settle())), "")
	list := w.client.CheckoutSessions.List(nil)
	for list.Next() {
		t.Errorf("a refused session was stored: %s", list.CheckoutSession().ID)
	}
}

func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t)
	p := w.params(1000)
	p.SetIdempotencyKey("checkout/1")
	first, err := w.client.CheckoutSessions.New(p)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("replays the answer and does nothing", func(t *testing.T) {
		again, err := w.client.CheckoutSessions.New(p)
		if err != nil {
			t.Fatal(err)
		}
		eq(t, "id", again.ID, first.ID)
		eq(t, "body", string(again.LastResponse.RawJSON), string(first.LastResponse.RawJSON))
		eq(t, "header", again.LastResponse.Header.Get("Idempotent-Replayed"), "true")
		eq(t, "first header", first.LastResponse.Header.Get("Idempotent-Replayed"), "")
	})
	t.Run("refuses other parameters", func(t *testing.T) {
		other := w.params(1001)
		other.SetIdempotencyKey("checkout/1")
		_, err := w.client.CheckoutSessions.New(other)
		eq(t, "error", code(err), "400 idempotency_error ")
	})
	t.Run("refuses another endpoint", func(t *testing.T) {
		r := &api.RefundParams{PaymentIntent: api.String("pi_1")}
		r.SetIdempotencyKey("checkout/1")
		_, err := w.client.Refunds.New(r)
		eq(t, "error", code(err), "400 idempotency_error ")
	})
	t.Run("keeps a refusal that came while executing", func(t *testing.T) {
		r := &api.RefundParams{PaymentIntent: api.String("pi_none")}
		r.SetIdempotencyKey("refund/1")
		for range 2 {
			_, err := w.client.Refunds.New(r)
			eq(t, "error", code(err), "400 invalid_request_error resource_missing")
		}
		_, err := w.client.Refunds.New(r)
		eq(t, "header", err.(*api.Error).LastResponse.Header.Get("Idempotent-Replayed"), "true")
	})
	t.Run("does not keep what failed validation", func(t *testing.T) {
		wrong := w.params(1)
		wrong.SetIdempotencyKey("checkout/2")
		if _, err := w.client.CheckoutSessions.New(wrong); err == nil {
			t.Fatal("one cent was accepted")
		}
		right := w.params(1000)
		right.SetIdempotencyKey("checkout/2")
		if _, err := w.client.CheckoutSessions.New(right); err != nil {
			t.Error(err)
		}
	})
	t.Run("is forgotten after a day", func(t *testing.T) {
		w.move(24 * time.Hour)
		fresh := w.params(1000)
		fresh.SetIdempotencyKey("checkout/1")
		again, err := w.client.CheckoutSessions.New(fresh)
		if err != nil {
			t.Fatal(err)
		}
		if again.ID == first.ID {
			t.Error("a day later the same session came back, want a new one")
		}
	})
}

func TestLists(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for range 7 {
		ids = append([]string{w.session(500).ID}, ids...)
		w.move(time.Second)
	}
	read := func(p *api.CheckoutSessionListParams) []string {
		t.Helper()
		var got []string
		it := w.client.CheckoutSessions.List(p)
		for it.Next() {
			got = append(got, it.CheckoutSession().ID)
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		return got
	}
	page := func(limit int64) api.ListParams { return api.ListParams{Limit: api.Int64(limit)} }

	eq(t, "all, by pages of 3", joined(read(&api.CheckoutSessionListParams{ListParams: page(3)})), joined(ids))
	backward := page(2)
	backward.EndingBefore = api.String(ids[5])
	eq(t, "backwards from the last but one", joined(read(&api.CheckoutSessionListParams{ListParams: backward})), joined([]string{ids[4], ids[3], ids[2], ids[1], ids[0]}))
	eq(t, "created range", joined(read(&api.CheckoutSessionListParams{CreatedRange: &api.RangeQueryParams{GreaterThanOrEqual: monday.Unix() + 2, LesserThan: monday.Unix() + 4}})), joined(ids[3:5]))

	single := page(3)
	single.Single = true
	it := w.client.CheckoutSessions.List(&api.CheckoutSessionListParams{ListParams: single})
	eq(t, "has_more of the first page", it.CheckoutSessionList().HasMore, true)
	single.StartingAfter = api.String(ids[3])
	it = w.client.CheckoutSessions.List(&api.CheckoutSessionListParams{ListParams: single})
	eq(t, "has_more of the last page", it.CheckoutSessionList().HasMore, false)

	for _, bad := range []api.ListParams{{Limit: api.Int64(0)}, {Limit: api.Int64(101)}, {StartingAfter: api.String("cs_none")}, {StartingAfter: &ids[0], EndingBefore: &ids[1]}} {
		if it := w.client.CheckoutSessions.List(&api.CheckoutSessionListParams{ListParams: bad}); it.Err() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestWhoMayCall(t *testing.T) {
	w := newWorld(t)
	_, err := connect(w.url, "sk_test_somebody0else00").Balance.Get(nil)
	eq(t, "wrong key", code(err), "401 invalid_request_error ")
	if strings.Contains(err.Error(), "somebody0else00") {
		t.Errorf("the key is in the message: %s", err)
	}
	for _, tt := range []struct {
		name, path, auth, version string
		want                      int
	}{
		{"no key", "/v1/balance", "", "", 401},
		{"basic authentication", "/v1/balance", "basic", "", 200},
		{"another version", "/v1/balance", "basic", "2024-06-20", 400},
		{"an unknown path", "/v1/invoices", "basic", "", 404},
		{"an unknown id", "/v1/charges/ch_none", "basic", "", 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.auth != "" {
				r.SetBasicAuth(key, "")
			}
			if tt.version != "" {
				r.Header.Set("Stripe-Version", tt.version)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			eq(t, "status", resp.StatusCode, tt.want)
			var shape struct {
				Error *struct{ Type, Message string }
			}
			if err := json.Unmarshal(body, &shape); err != nil || (tt.want != 200) != (shape.Error != nil) {
				t.Errorf("body is not in Stripe's shape: %v %s", err, body)
			}
			if tt.want != 404 && !strings.HasPrefix(resp.Header.Get("Request-Id"), "req_") {
				t.Errorf("Request-Id = %q", resp.Header.Get("Request-Id"))
			}
		})
	}
}

func TestCustomers(t *testing.T) {
	w := newWorld(t)
	c, err := w.client.Customers.New(&api.CustomerParams{Email: api.String("payer@demo.example"), Metadata: map[string]string{"resident": "r1"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err = w.client.Customers.Update(c.ID, &api.CustomerParams{Name: api.String("Ada")})
	if err != nil {
		t.Fatal(err)
	}
	eq(t, "customer", c.Email+" "+c.Name+" "+c.Metadata["resident"], "payer@demo.example Ada r1")
	p := w.params(1000)
	p.Customer = &c.ID
	s, err := w.client.CheckoutSessions.New(p)
	if err != nil {
		t.Fatal(err)
	}
	if page := w.get(s.URL); !strings.Contains(page.body, `value="payer@demo.example" required readonly`) {
		t.Error("the customer's e-mail is not fixed on the page")
	}
	if c, err = w.client.Customers.Del(c.ID, nil); err != nil || !c.Deleted {
		t.Errorf("delete: %+v %v", c, err)
	}
	if c, err = w.client.Customers.Get(c.ID, nil); err != nil || !c.Deleted || c.Email != "" {
		t.Errorf("a deleted customer still says %+v %v", c, err)
	}
	if it := w.client.Customers.List(&api.CustomerListParams{}); it.Next() {
		t.Error("a deleted customer is listed")
	}
}

func TestFormsAreReadAsTrees(t *testing.T) {
	w := newWorld(t)
	send := func(body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/v1/checkout/sessions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(key, "")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		s := see(t, resp, nil)
		return s.status, s.body
	}
	// As curl users write it: unnumbered arrays, any order.
	status, body := send("success_url=https%3A%2F%2Fx.example%2F&mode=payment&line_items[0][quantity]=2&line_items[0][price_data][product_data][name]=Fine" +
		"&line_items[0][price_data][currency]=cad&line_items[0][price_data][unit_amount]=500&payment_method_types[]=card&payment_method_types[]=acss_debit")
	if status != 200 || !strings.Contains(body, `"amount_total":1000`) || !strings.Contains(body, `"payment_method_types":["card","acss_debit"]`) {
		t.Errorf("answered %d %s", status, body)
	}
	for name, bad := range map[string]string{
		"text where a number belongs":  "mode=payment&success_url=https%3A%2F%2Fx.example%2F&line_items[0][quantity]=two",
		"a value where a tree belongs": "mode=payment&success_url=https%3A%2F%2Fx.example%2F&line_items=1",
		"a tree where a value belongs": "mode[x]=payment",
		"an index that is none":        "mode=payment&success_url=https%3A%2F%2Fx.example%2F&line_items[first][quantity]=1",
		"endless nesting":              url.QueryEscape("a"+strings.Repeat("[b]", 50)) + "=1",
		"a broken escape":              "mode=%zz",
	} {
		if status, body := send(bad); status != 400 || !strings.Contains(body, "invalid_request_error") {
			t.Errorf("%s answered %d %s", name, status, body)
		}
	}
}
