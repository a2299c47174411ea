package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"guichet/api/web"
	"guichet/api/web/webtest"
	"guichet/internal/browser"
	"guichet/internal/clock"
	"guichet/internal/money"
)

type galleryData struct {
	Form   *web.Form
	Amount money.Amount
	Day    clock.Date
	At     time.Time
	Pages  web.Pagination
	Count  int
}

func gallery() galleryData {
	form := &web.Form{Values: url.Values{"notice": {"7K3M"}, "lang": {"fr"}}}
	form.Fail("notice", "web.error.s404.title")
	return galleryData{
		form, 123450,
		clock.Date{Year: 2026, Month: 8, Day: 1},
		time.Date(2026, 8, 1, 18, 5, 0, 0, time.UTC),
		web.Pagination{Page: 4, Total: 9},
		12345,
	}
}

func TestGallery(t *testing.T) {
	webtest.Room(t, "gallery", os.DirFS("testdata/gallery"), webtest.Samples{
		"gallery/all":   {gallery(), galleryData{Amount: 1, Day: gallery().Day, At: gallery().At, Pages: web.Pagination{Page: 1}}},
		"gallery/staff": {gallery()}, "gallery/alone": {gallery()},
	})
}

// TestGalleryInBrowser shows every part in every layout, on a desktop and a phone,
// in light and dark colours, and the error pages.
func TestGalleryInBrowser(t *testing.T) {
	site := web.New(web.Options{Dev: true, Viewer: func(r *http.Request) web.Viewer {
		v := web.Viewer{Name: "Demo Résidente", SignOut: "/signout"}
		if strings.Contains(r.URL.Path, "staff") {
			v.Nav = []web.Link{{Href: "/desk", Label: "web.desk"}, {Href: "/gallery/staff", Label: "gallery.title"}}
		}
		return v
	}})
	site.Register("gallery", os.DirFS("testdata/gallery"))
	mux := http.NewServeMux()
	mux.Handle("/static/", site.Static())
	mux.HandleFunc("/gallery/{page}", func(w http.ResponseWriter, r *http.Request) {
		site.Page(w, r, http.StatusOK, "gallery/"+r.PathValue("page"), gallery())
	})
	mux.HandleFunc("/fail/{status}", func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.PathValue("status"))
		if err != nil {
			status = http.StatusBadRequest
		}
		site.Fail(w, r, status, "")
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	b := browser.New(t)
	page := browser.Open(t, b, srv.URL+"/gallery/all", browser.Desktop)
	look := func(what, name string) {
		t.Helper()
		browser.Go(t, page, srv.URL+"/"+what)
		browser.Axe(t, page)
		browser.NoSideways(t, page)
		browser.Shot(t, page, "web-"+name)
	}
	for _, v := range []struct {
		name string
		size browser.Viewport
	}{{"desktop", browser.Desktop}, {"phone", browser.Phone}} {
		browser.Resize(t, page, v.size)
		look("gallery/all?lang=en", "gallery-resident-en-"+v.name)
		look("gallery/staff?lang=fr", "gallery-desk-fr-"+v.name)
		look("gallery/alone?lang=en", "gallery-bare-en-"+v.name)
		look("fail/429?lang=fr", "fail-429-fr-"+v.name)
	}
	browser.Dark(t, page)
	look("gallery/all?lang=fr", "gallery-resident-fr-phone-dark")
	look("fail/500?lang=en", "fail-500-en-phone-dark")
	browser.Light(t, page)
	browser.Resize(t, page, browser.Viewport{Width: 320, Height: 640, Phone: true}) // WCAG 2.2, 1.4.10
	look("gallery/all?lang=fr", "gallery-resident-fr-narrow")
	look("gallery/staff?lang=en", "gallery-desk-en-narrow")
}
