package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"guichet/api/departments"
	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/simulators/control"
)

// A raised bill is a bill of the demonstration data, as the API answered.
type raised struct {
	ID         string `json:"id"`
	Department string `json:"department"`
	Reference  string `json:"reference"`
	Notice     string `json:"notice_number"`
	State      string `json:"state"`
	DueCents   int64  `json:"due_cents"`
	GuestKey   string `json:"guest_key"`
	Payer      string `json:"payer"`
}

func (r raised) due() money.Amount { return money.Amount(r.DueCents) }

// raiseBills sends the bills of the demonstration data to the department API, as
// the departments' own applications would: those whose payer is wanted, owned by
// subject[department] where that is known. Sending them again changes nothing.
func (s *stack) raiseBills(ctx context.Context, wanted func(payer string) bool, subject map[string]string) ([]raised, error) {
	text, err := demo.Open("demo/bills.csv")
	if err != nil {
		return nil, err
	}
	defer text.Close()
	rows, err := readCSV(text)
	if err != nil {
		return nil, fmt.Errorf("read demo bills: %w", err)
	}
	today := clock.DateOf(s.clock.Now())
	var bills []raised
	for i := 0; i < len(rows); {
		j := i + 1
		for j < len(rows) && rows[j]["reference"] == rows[i]["reference"] {
			j++
		}
		if wanted(rows[i]["payer"]) {
			b, err := s.raiseBill(ctx, rows[i:j], today, subject)
			if err != nil {
				return nil, fmt.Errorf("raise bill %s: %w", rows[i]["reference"], err)
			}
			bills = append(bills, b)
		}
		i = j
	}
	return bills, nil
}

func (s *stack) raiseBill(ctx context.Context, lines []map[string]string, today clock.Date, subject map[string]string) (raised, error) {
	head := lines[0]
	issued, err := strconv.Atoi(head["issued"])
	if err != nil {
		return raised{}, err
	}
	due, err := strconv.Atoi(head["due"])
	if err != nil {
		return raised{}, err
	}
	type line struct {
		Fee         string            `json:"fee"`
		AmountCents money.Amount      `json:"amount_cents,omitempty"`
		Description map[string]string `json:"description,omitempty"`
	}
	body := struct {
		Type         string `json:"type"`
		Reference    string `json:"reference"`
		OwnerSubject string `json:"owner_subject,omitempty"`
		GuestKey     string `json:"guest_key"`
		IssuedOn     string `json:"issued_on"`
		DueOn        string `json:"due_on"`
		Lines        []line `json:"lines"`
	}{
		Type: head["type"], Reference: head["reference"], OwnerSubject: subject[head["department"]], GuestKey: head["guest_key"],
		IssuedOn: today.AddDays(issued).String(), DueOn: today.AddDays(due).String(),
	}
	if head["payer"] == "guest" {
		body.OwnerSubject = ""
	}
	for _, l := range lines {
		amount, err := optionalAmount(l["amount"])
		if err != nil {
			return raised{}, err
		}
		out := line{Fee: l["fee"], AmountCents: amount}
		if l["description_en"] != "" {
			out.Description = map[string]string{"en": l["description_en"], "fr": l["description_fr"]}
		}
		body.Lines = append(body.Lines, out)
	}
	b := raised{Department: head["department"], GuestKey: head["guest_key"], Payer: head["payer"]}
	err = s.callAPI(ctx, b.Department, "/bills", "demo/"+body.Reference, body, &b)
	return b, err
}

// callAPI posts to the department API as the department's application does.
func (s *stack) callAPI(ctx context.Context, department, path, key string, body, answer any) error {
	return post(ctx, s.ports.url(portPortal)+departments.Prefix+path, body, answer, map[string]string{
		"Authorization": "Bearer " + s.secrets.Departments[department].APIKey, "Idempotency-Key": key,
	})
}

// post sends JSON and reads the JSON answer; anything but 2xx is an error with the
// answer's text.
func post(ctx context.Context, address string, body, answer any, headers map[string]string) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	return exchange(req, answer)
}

// get reads JSON from an address.
func get(ctx context.Context, address string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	return exchange(req, answer)
}

func exchange(req *http.Request, answer any) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(http.MaxBytesReader(nil, resp.Body, maxPage)); err != nil {
		return err
	}
	if resp.StatusCode > 299 {
		return fmt.Errorf("%s answered %d: %s", req.URL.Path, resp.StatusCode, text.String())
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text.Bytes(), answer)
}

// demoNotices raises the guests' bills on the first start and finds them again on
// the next ones.
func (s *stack) demoNotices(ctx context.Context) ([]raised, error) {
	path := filepath.Join(s.dir, "demo", "notices.json")
	text, err := os.ReadFile(path)
	if err == nil {
		var kept []raised
		if err := json.Unmarshal(text, &kept); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		return kept, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	bills, err := s.raiseBills(ctx, func(payer string) bool { return payer == "guest" }, nil)
	if err != nil {
		return nil, err
	}
	if text, err = json.Marshal(bills); err != nil {
		return nil, err
	}
	return bills, control.WriteFile(path, text, 0o644)
}
