package oidc_test

import (
	"bytes"
	"image"
	"image/png"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/department"
)

func TestTheSignInPageShowsTheDepartment(t *testing.T) {
	w := newWorld(t)
	a := w.parking()
	b := w.browser()
	path := b.startSignIn(a.authorizeURL(a.request()))
	if page := b.get(path); strings.Contains(page.body, "brand-band") {
		t.Error("a band without a branding")
	}
	c, err := w.provider.Client(t.Context(), a.id)
	must(t, err)
	var logo bytes.Buffer
	must(t, png.Encode(&logo, image.NewGray(image.Rect(0, 0, 8, 8))))
	brand := func(colour string) {
		t.Helper()
		must(t, pgx.BeginFunc(t.Context(), w.db, func(tx pgx.Tx) error {
			return w.depts.SetBranding(t.Context(), tx, c.DepartmentID, department.Branding{Colour: colour, Logo: logo.Bytes(), LogoEN: "Parking <P>", LogoFR: "Stationnement"})
		}))
	}
	brand("#0f3d4c")
	page := b.get(path)
	links := regexp.MustCompile(`(?:href|src)="(/branding/[^"]+)"`).FindAllStringSubmatch(page.body, -1)
	if len(links) != 2 || !strings.Contains(page.body, `alt="Parking &lt;P&gt;"`) {
		t.Fatalf("links %v in %s", links, page.body)
	}
	style, picture := b.get(links[0][1]), b.get(links[1][1])
	if style.body != ".brand-band { background: #0f3d4c; }\n" || style.header.Get("Content-Type") != "text/css; charset=utf-8" || style.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("style %q, %v", style.body, style.header)
	}
	if picture.body != logo.String() || picture.header.Get("Content-Type") != "image/png" {
		t.Errorf("logo of %d bytes, %v", len(picture.body), picture.header)
	}
	w.later(time.Second)
	brand("#102030")
	if old := b.get(links[0][1]); old.status != http.StatusNotFound {
		t.Errorf("the address of an older branding: %d", old.status)
	}
	for _, path := range []string{"/branding/x/1/band.css", "/branding/" + c.DepartmentID + "/0/logo"} {
		if got := b.get(path); got.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}
