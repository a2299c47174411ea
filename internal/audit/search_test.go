package audit_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/audit"
	"guichet/internal/testdb"
)

func TestSearchFindsByEachFieldAndPages(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	record := func(o audit.Origin, e audit.Event) {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return audit.Record(audit.With(t.Context(), o), tx, e) })
		if err != nil {
			t.Fatal(err)
		}
	}
	for n := range 10 {
		record(audit.Origin{Actor: fmt.Sprintf("m%d", n%2), ActorKind: audit.Staff, Network: fmt.Sprintf("203.0.%d.0/24", n%3), RequestID: fmt.Sprintf("q%d", n)},
			audit.Event{Action: []string{"bill.viewed", "bill", "billing.run"}[n%3], ObjectType: "bill", ObjectID: fmt.Sprintf("b%d", n), Subject: fmt.Sprintf("r%d", n%4), At: at.Add(time.Duration(n) * time.Hour)})
	}
	tests := []struct {
		name string
		f    audit.Filter
		want []int // numbers of b, newest first
	}{
		{"everything", audit.Filter{}, []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{"by actor", audit.Filter{Actor: "m1"}, []int{9, 7, 5, 3, 1}},
		{"by subject", audit.Filter{Subject: "r3"}, []int{7, 3}},
		{"by object", audit.Filter{ObjectType: "bill", ObjectID: "b4"}, []int{4}},
		{"by action and what is under it", audit.Filter{Action: "bill"}, []int{9, 7, 6, 4, 3, 1, 0}},
		{"by action alone", audit.Filter{Action: "bill.viewed"}, []int{9, 6, 3, 0}},
		{"by network", audit.Filter{Network: "203.0.1."}, []int{7, 4, 1}},
		{"by request", audit.Filter{RequestID: "q5"}, []int{5}},
		{"by time", audit.Filter{From: at.Add(2 * time.Hour), To: at.Add(5 * time.Hour)}, []int{4, 3, 2}},
		{"by two things", audit.Filter{Actor: "m1", Subject: "r3"}, []int{7, 3}},
		{"what nobody did", audit.Filter{Actor: "' or true --"}, nil},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			var got []int
			for page := 0; ; page++ { // in pages of two
				c.f.Limit = 2
				rows, err := audit.Search(t.Context(), db, c.f)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rows {
					var n int
					if _, err := fmt.Sscanf(r.ObjectID, "b%d", &n); err != nil {
						t.Fatal(err)
					}
					got, c.f.Before = append(got, n), r.Seq
				}
				if len(rows) < 2 {
					break
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	if asked := (audit.Filter{Actor: "m1", From: at, Limit: 5, Before: 3}).Asked(); len(asked) != 2 || asked["actor"] != "m1" {
		t.Errorf("asked %v", asked)
	}
}
