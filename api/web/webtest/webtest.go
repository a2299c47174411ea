// Package webtest checks the pages of a room in its own test: every page has a
// sample, and every sample renders in both languages. The words themselves are
// checked when the room is registered.
package webtest

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"guichet/api/web"
)

// Samples are data for pages: "room/page" → what its handlers may pass to it. Give
// a page as many samples as it has faces.
type Samples map[string][]any

// Room registers a room at a fresh site and renders all its pages with their samples
// in English and French. A page without a sample fails the test, and so does a
// sample without a page.
func Room(t *testing.T, room string, files fs.FS, samples Samples) {
	t.Helper()
	site := web.New(web.Options{Dev: true})
	site.Register(room, files)
	pages := site.Pages(room)
	if len(pages) == 0 {
		t.Fatalf("room %s has no page", room)
	}
	known := map[string]bool{}
	for _, page := range pages {
		known[page] = true
		if len(samples[page]) == 0 {
			t.Errorf("page %s has no sample", page)
		}
		for i, data := range samples[page] {
			for _, lang := range web.Languages {
				text, err := site.Render(lang, page, data)
				if err != nil {
					t.Errorf("%s, sample %d, %s: %v", page, i, lang, err)
					continue
				}
				for _, fault := range Faults(text) {
					t.Errorf("%s, sample %d, %s: %s", page, i, lang, fault)
				}
			}
		}
	}
	for page := range samples {
		if !known[page] {
			t.Errorf("sample for %s, which is no page", page)
		}
	}
}

var (
	ours   = regexp.MustCompile(`<script src="/static/[^"]+" integrity="sha384-[^"]+" defer></script>`)
	inline = regexp.MustCompile(`(?i)<script|<style|\sstyle=|\son[a-z]+=|javascript:`)
	outer  = regexp.MustCompile(`(?i)(?:src|rel="(?:stylesheet|icon)" href)="(?:https?:)?//`)
	ids    = regexp.MustCompile(`\sid="([^"]*)"`)
	title  = regexp.MustCompile(`(?s)<title>\s*–|<title>\s*</title>`)
)

// Faults lists what no page may have: traces of missing values, inline script or style,
// things loaded from elsewhere, an id used twice, not exactly one h1.
func Faults(page string) []string {
	var faults []string
	for _, trace := range []string{"<no value>", "ZgotmplZ", "%!", "{{"} {
		if strings.Contains(page, trace) {
			faults = append(faults, "contains "+trace)
		}
	}
	if m := inline.FindString(ours.ReplaceAllString(page, "")); m != "" {
		faults = append(faults, "inline script or style: "+m)
	}
	if m := outer.FindString(page); m != "" {
		faults = append(faults, "loads from elsewhere: "+m)
	}
	if title.MatchString(page) {
		faults = append(faults, "has no title")
	}
	if n := strings.Count(page, "<h1"); n != 1 {
		faults = append(faults, "has not exactly one h1")
	}
	seen := map[string]bool{}
	for _, m := range ids.FindAllStringSubmatch(page, -1) {
		if seen[m[1]] {
			faults = append(faults, "id used twice: "+m[1])
		}
		seen[m[1]] = true
	}
	return faults
}
