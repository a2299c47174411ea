package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// A browser walks through pages as a person without JavaScript does: it follows
// links and redirects, keeps cookies and submits forms. The demo uses it.
type browser struct {
	client *http.Client
	page   page
	home   string   // prefix of addresses that are not followed: an application of the walker's own
	sent   *url.URL // where a redirect to home led
}

// A page is where a browser stands.
type page struct {
	url    *url.URL
	status int
	root   *html.Node
	body   []byte
}

const maxPage = 4 << 20

func newBrowser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // documented never to fail without options
	}
	b := &browser{client: &http.Client{Jar: jar, Timeout: 30 * time.Second}}
	b.client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if b.home != "" && strings.HasPrefix(req.URL.String(), b.home) {
			b.sent = req.URL
			return http.ErrUseLastResponse
		}
		if len(via) > 10 {
			return errors.New("more than 10 redirects")
		}
		return nil
	}
	return b
}

// open goes to an address; anything but a 2xx page is an error with its heading.
func (b *browser) open(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	return b.do(req)
}

// press fills in the first form that has a button with the given value, or whose
// action ends in it, and sends the form. Fields that are not given keep what the
// page put into them.
func (b *browser) press(ctx context.Context, button string, fields map[string]string) error {
	var pressed *html.Node
	form := find(b.page.root, func(n *html.Node) bool {
		if n.Data != "form" {
			return false
		}
		pressed = find(n, func(n *html.Node) bool { return n.Data == "button" && attr(n, "value") == button })
		return pressed != nil || strings.HasSuffix(b.resolve(attr(n, "action")).Path, button)
	})
	if form == nil {
		return fmt.Errorf("page %s (%q) has no form for %s", b.page.url.Path, b.heading(), button)
	}
	values := url.Values{}
	walk(form, func(n *html.Node) {
		name := attr(n, "name")
		if name == "" || (n.Data != "input" && n.Data != "select") {
			return
		}
		kind := attr(n, "type")
		if (kind == "checkbox" || kind == "radio") && !has(n, "checked") || kind == "submit" {
			return
		}
		values.Add(name, attr(n, "value"))
	})
	if pressed != nil {
		values.Set(attr(pressed, "name"), button)
	}
	for name, value := range fields {
		values.Set(name, value)
	}
	target := b.resolve(attr(form, "action"))
	method := strings.ToUpper(attr(form, "method"))
	if method != http.MethodPost {
		target.RawQuery = values.Encode()
		return b.open(ctx, target.String())
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", b.page.url.Scheme+"://"+b.page.url.Host)
	return b.do(req)
}

// choose presses like press, with exactly these values of a check box.
func (b *browser) choose(ctx context.Context, button, box string, values []string) error {
	walk(b.page.root, func(n *html.Node) {
		if n.Data != "input" || attr(n, "name") != box {
			return
		}
		n.Attr = slices.DeleteFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "checked" })
		if slices.Contains(values, attr(n, "value")) {
			n.Attr = append(n.Attr, html.Attribute{Key: "checked"})
		}
	})
	return b.press(ctx, button, nil)
}

func (b *browser) do(req *http.Request) error {
	req.Header.Set("Accept", "text/html")
	b.sent = nil
	resp, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return fmt.Errorf("read %s: %w", req.URL.Path, err)
	}
	root, err := html.Parse(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("read %s: %w", req.URL.Path, err)
	}
	b.page = page{url: resp.Request.URL, status: resp.StatusCode, root: root, body: body}
	if resp.StatusCode > 299 && (b.sent == nil || resp.StatusCode > 399) {
		return fmt.Errorf("%s answered %d (%q)", resp.Request.URL.Path, resp.StatusCode, b.heading())
	}
	return nil
}

func (b *browser) resolve(ref string) *url.URL {
	u, err := b.page.url.Parse(ref)
	if err != nil {
		return b.page.url
	}
	return u
}

// heading is the page's first heading: what a person would say the page is.
func (b *browser) heading() string {
	return text(find(b.page.root, func(n *html.Node) bool { return n.Data == "h1" }))
}

// link is the address of the first link whose path begins with prefix, or "".
func (b *browser) link(prefix string) string {
	n := find(b.page.root, func(n *html.Node) bool {
		return n.Data == "a" && strings.HasPrefix(b.resolve(attr(n, "href")).Path, prefix)
	})
	if n == nil {
		return ""
	}
	return b.resolve(attr(n, "href")).String()
}

// says reports whether the page's text holds the words.
func (b *browser) says(words string) bool { return strings.Contains(text(b.page.root), words) }

func walk(n *html.Node, visit func(*html.Node)) {
	if n == nil {
		return
	}
	if n.Type == html.ElementNode {
		visit(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		walk(c, visit)
	}
}

func find(n *html.Node, match func(*html.Node) bool) (found *html.Node) {
	walk(n, func(n *html.Node) {
		if found == nil && match(n) {
			found = n
		}
	})
	return found
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	for _, a := range n.Attr {
		if a.Key == name {
			return true
		}
	}
	return false
}

// text is what a node says, with white space as one blank.
func text(n *html.Node) string {
	var b strings.Builder
	var collect func(*html.Node)
	collect = func(n *html.Node) {
		if n == nil || (n.Type == html.ElementNode && (n.Data == "script" || n.Data == "style")) {
			return
		}
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			collect(c)
		}
	}
	collect(n)
	return strings.Join(strings.Fields(b.String()), " ")
}
