package desk

import (
	"context"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"

	"guichet/internal/money"
	"guichet/internal/table"
	"guichet/ledger"
)

// accountsPage is the tree of accounts with what they hold now.
type accountsPage struct {
	view
	Roots       []*accountNode
	Types       []option
	States      []option
	Departments []option
	Count       int
}

// An accountNode is one part of a path: an account, or what is above accounts, or both.
type accountNode struct {
	Path     string
	Part     string          // the last of the path
	Account  *ledger.Account // nil: only what is above
	Balance  money.Amount    // of the account itself
	Children []*accountNode
	Sums     []accountSum // of the account and all beneath it
	Accounts int          // how many they are
}

// accountSum is a sum in one currency.
type accountSum struct {
	Currency string
	Balance  money.Amount
}

func (n *accountNode) add(l ledger.TrialLine) {
	n.Accounts++
	for i := range n.Sums {
		if n.Sums[i].Currency == l.Account.Currency {
			n.Sums[i].Balance += l.Balance
			return
		}
	}
	n.Sums = append(n.Sums, accountSum{l.Account.Currency, l.Balance})
}

// treeOf makes a tree of accounts in order of path.
func treeOf(list []ledger.TrialLine) []*accountNode {
	var roots []*accountNode
	for _, l := range list {
		level, path := &roots, ""
		var node *accountNode
		for part := range strings.SplitSeq(l.Account.Path, ":") {
			path = strings.TrimPrefix(path+":"+part, ":")
			node = nil
			for _, have := range *level { // not only the last: "a-b" stands between "a" and "a:c"
				if have.Path == path {
					node = have
				}
			}
			if node == nil {
				node = &accountNode{Path: path, Part: part}
				*level = append(*level, node)
			}
			node.add(l)
			level = &node.Children
		}
		node.Account, node.Balance = &l.Account, l.Balance
	}
	return roots
}

// Deeper is the next level of a tree.
func (accountsPage) Deeper(depth int) int { return depth + 1 }

// Limit is the least balance allowed, in the reader's language.
func (p accountsPage) Limit(a *ledger.Account) string { return a.Lowest.Format(p.Lang) }

// accountFilter narrows the tree to a type, a state and a department.
func (v view) accountFilter(list []ledger.TrialLine) []ledger.TrialLine {
	var out []ledger.TrialLine
	for _, l := range list {
		fits := func(name, value string) bool { return v.query.Get(name) == "" || v.query.Get(name) == value }
		if fits("type", string(l.Account.Type)) && fits("state", string(l.Account.State)) && fits("department", l.Account.Department) {
			out = append(out, l)
		}
	}
	return out
}

func (h *Handler) accounts(w http.ResponseWriter, r *http.Request) {
	v, ok := h.named(w, r)
	if !ok {
		return
	}
	p := accountsPage{view: v, Departments: v.departments()}
	p.Types = choices(v, "type", "account_type", []ledger.Type{ledger.Asset, ledger.Liability, ledger.Equity, ledger.Revenue, ledger.Expense})
	p.States = choices(v, "state", "account_state", []ledger.State{ledger.Open, ledger.Frozen, ledger.Closed})
	list, err := h.totals(r.Context(), v)
	if err != nil {
		h.fail(w, r, "read accounts", err)
		return
	}
	p.Roots, p.Count = treeOf(list), len(list)
	h.Site.Page(w, r, http.StatusOK, "desk/accounts", p)
}

func (h *Handler) totals(ctx context.Context, v view) (list []ledger.TrialLine, err error) {
	err = h.snapshot(ctx, func(tx pgx.Tx) error {
		list, err = h.Books.AccountTotals(ctx, tx, ledger.AsOf{})
		return err
	})
	return v.accountFilter(list), err
}

func (h *Handler) accountsTable(ctx context.Context, v view, _ *http.Request) (table.Table, error) {
	list, err := h.totals(ctx, v)
	if err != nil {
		return table.Table{}, err
	}
	var facts []table.Fact
	for _, name := range []string{"type", "state", "department"} {
		if value := v.query.Get(name); value != "" {
			facts = append(facts, table.Fact{Key: name, Value: value})
		}
	}
	return h.reports(v).Accounts(list, facts...), nil
}
