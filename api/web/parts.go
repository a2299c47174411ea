package web

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Step is one station of the step indicator.
type Step struct {
	Label         string
	Done, Current bool
}

// steps makes the step indicator: steps 2 (t "…") (t "…") (t "…") stands at the second.
func steps(current int, labels ...string) ([]Step, error) {
	if current < 1 || current > len(labels) {
		return nil, fmt.Errorf("steps: %d of %d", current, len(labels))
	}
	all := make([]Step, len(labels))
	for i, l := range labels {
		all[i] = Step{l, i+1 < current, i+1 == current}
	}
	return all, nil
}

// Crumb is one link of the way back.
type Crumb struct{ Href, Label string }

// crumbs makes breadcrumbs from addresses and labels: crumbs "/" (t "…") "/account" (t "…").
// The page itself is not part of them; its heading says where the reader is.
func crumbs(pairs ...string) ([]Crumb, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("crumbs: addresses and labels come in pairs")
	}
	var all []Crumb
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, Crumb{pairs[i], pairs[i+1]})
	}
	return all, nil
}

// Pagination is a place in a long list. Total 0 means unknown: then Next says
// whether there is more.
type Pagination struct {
	Query url.Values // what else is in the address: filters, search
	Page  int        // from 1
	Total int        // pages
	Next  bool
}

// PageLink is one link of a pagination.
type PageLink struct {
	Number  int // 0: a gap
	Href    string
	Current bool
}

// PageLinks is what the pagination component shows.
type PageLinks struct {
	Previous, Next string // addresses, empty when there is none
	Links          []PageLink
}

func pagesOf(p Pagination) (PageLinks, error) {
	if p.Page < 1 {
		return PageLinks{}, fmt.Errorf("pages: page %d", p.Page)
	}
	href := func(n int) string {
		q := url.Values{}
		for k, v := range p.Query {
			q[k] = v
		}
		q.Set("page", strconv.Itoa(n))
		return "?" + q.Encode()
	}
	var out PageLinks
	if p.Page > 1 {
		out.Previous = href(p.Page - 1)
	}
	if p.Next || p.Page < p.Total {
		out.Next = href(p.Page + 1)
	}
	last := 0
	for n := 1; n <= p.Total; n++ {
		if n != 1 && n != p.Total && (n < p.Page-1 || n > p.Page+1) {
			continue
		}
		if n-last > 1 {
			out.Links = append(out.Links, PageLink{})
		}
		out.Links = append(out.Links, PageLink{n, href(n), n == p.Page})
		last = n
	}
	return out, nil
}

// here reports whether a place of the navigation is where the reader is.
func here(path, href string) bool {
	return path == href || (href != "/" && strings.HasPrefix(path, href+"/"))
}
