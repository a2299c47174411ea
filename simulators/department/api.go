package department

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"guichet/internal/clock"
	"guichet/simulators/control"
)

// bill is what this application needs of a bill of the department API.
type bill struct {
	ID          string `json:"id"`
	Notice      string `json:"notice_number"`
	State       string `json:"state"`
	AmountCents int64  `json:"amount_cents"`
	DueCents    int64  `json:"due_cents"`
	DueOn       string `json:"due_on"`
	URL         string `json:"url"`
	Lines       []struct {
		EN string `json:"description_en"`
		FR string `json:"description_fr"`
	} `json:"lines"`
}

// Payable reports whether something is left to pay.
func (b bill) Payable() bool {
	return b.DueCents > 0 && (b.State == "open" || b.State == "part_paid")
}

// bills lists the newest bills of a resident with the department.
func (a *App) bills(ctx context.Context, d Department, subject string) ([]bill, error) {
	var answer struct {
		Data []bill `json:"data"`
	}
	err := a.call(ctx, d, http.MethodGet, "/api/v1/bills?limit=100&owner="+url.QueryEscape(subject), "", nil, &answer)
	return answer.Data, err
}

// orderInspection raises the bill of an inspection. number makes it one order,
// however often it is sent.
func (a *App) orderInspection(ctx context.Context, d Department, subject, number string) error {
	today := clock.DateOf(a.o.Now())
	return a.call(ctx, d, http.MethodPost, "/api/v1/bills", "order/"+number, map[string]any{
		"type": "permit", "reference": "INS-" + number, "owner_subject": subject,
		"issued_on": today.String(), "due_on": today.AddDays(30).String(),
		"lines": []map[string]any{{"fee": a.o.InspectionFee, "quantity": 1}},
	}, nil)
}

// checkout opens a checkout and returns where the payer goes.
func (a *App) checkout(ctx context.Context, d Department, bills []string, number, lang string) (string, error) {
	var answer struct {
		URL string `json:"url"`
	}
	err := a.call(ctx, d, http.MethodPost, "/api/v1/checkouts", "checkout/"+number, map[string]any{
		"bills": bills, "return_url": a.o.URL + "/" + d.Code + "?returned=1", "lang": lang,
	}, &answer)
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(answer.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("checkout answered with the address %q", answer.URL)
	}
	return answer.URL, nil
}

// call speaks to the department API with the department's key. An answer that is
// not 2xx is an error with what the API said.
func (a *App) call(ctx context.Context, d Department, method, path, key string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.o.API+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+d.APIKey)
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, control.MaxBody))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.300s", method, req.URL.Path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	return nil
}
