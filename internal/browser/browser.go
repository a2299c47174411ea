// Package browser drives a real Chromium in tests: it finds the one that is
// installed, checks pages with axe-core and keeps pictures of them.
//
//	b := browser.New(t)
//	page := browser.Open(t, b, url, browser.Phone)
//	browser.Axe(t, page)
//	browser.Shot(t, page, "home-en-phone")
//
// Nothing is ever downloaded. Without Chromium a test is skipped with the reason,
// except where CI=true: there it fails. For tests only; no business in here.
package browser

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/launcher"
	"github.com/go-rod/rod/lib/launcher/flags"
	"github.com/go-rod/rod/lib/proto"
)

// patience is how long any one thing in the browser may take.
const patience = 30 * time.Second

// A Viewport is a size of window.
type Viewport struct {
	Width, Height int
	Phone         bool // touch, and the page's own viewport is heeded
}

var (
	Desktop = Viewport{Width: 1280, Height: 900}
	Phone   = Viewport{Width: 390, Height: 844, Phone: true}
)

// New starts a Chromium that ends with the test. Pages opened in it share cookies;
// b.MustIncognito() is another person's browser.
func New(t testing.TB) *rod.Browser {
	t.Helper()
	bin := find(t)
	l := launcher.New().Bin(bin).Leakless(false).Headless(true).
		Set("disable-background-networking").Set("disable-component-update").Set("disable-sync").
		Set("disable-quic").Set("no-first-run").Set("disable-dev-shm-usage").Set("force-color-profile", "srgb").Set("lang", "en-CA")
	if os.Geteuid() == 0 {
		l.Set(flags.NoSandbox) // Chromium refuses its sandbox to root
	}
	url, err := l.Launch()
	if err != nil {
		t.Fatalf("start %s: %v", bin, err)
	}
	t.Cleanup(func() {
		l.Kill()
		l.Cleanup()
	})
	b := rod.New().ControlURL(url)
	if err := b.Connect(); err != nil {
		t.Fatalf("connect to %s: %v", bin, err)
	}
	t.Cleanup(func() { _ = b.Close() }) // killed right after: an error here is of no interest
	return b
}

// find returns the path of Chromium or Chrome, or ends the test.
func find(t testing.TB) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium"} {
		if name == "" {
			continue
		}
		if bin, err := exec.LookPath(name); err == nil {
			return bin
		}
	}
	const missing = "no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// Open opens an address in a new page and waits until it is loaded.
func Open(t testing.TB, b *rod.Browser, url string, v Viewport) *rod.Page {
	t.Helper()
	page, err := b.Page(proto.TargetCreateTarget{})
	if err != nil {
		t.Fatalf("open page: %v", err)
	}
	page = page.Context(t.Context())
	Resize(t, page, v)
	Go(t, page, url)
	return page
}

// Resize gives a page another size of window.
func Resize(t testing.TB, page *rod.Page, v Viewport) {
	t.Helper()
	err := page.SetViewport(&proto.EmulationSetDeviceMetricsOverride{Width: v.Width, Height: v.Height, DeviceScaleFactor: 1, Mobile: v.Phone})
	if err != nil {
		t.Fatalf("resize: %v", err)
	}
}

// Dark shows a page as to a person who asks for dark colours.
func Dark(t testing.TB, page *rod.Page) { emulate(t, page, "", "dark") }

// Light undoes Dark and Print.
func Light(t testing.TB, page *rod.Page) { emulate(t, page, "", "light") }

// Print shows a page as on paper.
func Print(t testing.TB, page *rod.Page) { emulate(t, page, "print", "light") }

func emulate(t testing.TB, page *rod.Page, media, scheme string) {
	t.Helper()
	err := proto.EmulationSetEmulatedMedia{Media: media, Features: []*proto.EmulationMediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}.Call(page)
	if err != nil {
		t.Fatalf("emulate %s %s: %v", media, scheme, err)
	}
}

// Go opens an address in a page and waits until it is loaded.
func Go(t testing.TB, page *rod.Page, url string) {
	t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	if err := p.Navigate(url); err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	if err := p.WaitLoad(); err != nil {
		t.Fatalf("load %s: %v", url, err)
	}
}

// Click clicks what a CSS selector finds and waits for the page that follows.
func Click(t testing.TB, page *rod.Page, selector string) {
	t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	el := element(t, p, selector)
	wait := p.WaitNavigation(proto.PageLifecycleEventNameLoad)
	if err := el.Click(proto.InputMouseButtonLeft, 1); err != nil {
		t.Fatalf("click %s: %v", selector, err)
	}
	wait()
}

// Fill puts text into the input that a CSS selector finds, in place of what was there.
func Fill(t testing.TB, page *rod.Page, selector, text string) {
	t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	el := element(t, p, selector)
	if err := el.SelectAllText(); err != nil {
		t.Fatalf("select %s: %v", selector, err)
	}
	if err := el.Input(text); err != nil {
		t.Fatalf("fill %s: %v", selector, err)
	}
}

// Passkeys gives a page a device that makes and keeps passkeys, and whose owner always
// confirms. Pages of the same window opened later have none.
func Passkeys(t testing.TB, page *rod.Page) {
	t.Helper()
	if err := (proto.WebAuthnEnable{}).Call(page); err != nil {
		t.Fatalf("enable passkeys: %v", err)
	}
	_, err := proto.WebAuthnAddVirtualAuthenticator{Options: &proto.WebAuthnVirtualAuthenticatorOptions{
		Protocol: proto.WebAuthnAuthenticatorProtocolCtap2, Transport: proto.WebAuthnAuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}}.Call(page)
	if err != nil {
		t.Fatalf("add a device for passkeys: %v", err)
	}
}

// Text returns the text that a reader sees in what a CSS selector finds.
func Text(t testing.TB, page *rod.Page, selector string) string {
	t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	text, err := element(t, p, selector).Text()
	if err != nil {
		t.Fatalf("text of %s: %v", selector, err)
	}
	return text
}

func element(t testing.TB, page *rod.Page, selector string) *rod.Element {
	t.Helper()
	el, err := page.Element(selector)
	if err != nil {
		t.Fatalf("find %s: %v", selector, err)
	}
	return el
}

//go:embed testdata/axe-core/axe.min.js
var axeCore string

// violation is one rule of axe-core that a page breaks.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// Axe fails the test for every rule of WCAG 2.0 to 2.2, levels A and AA, and of
// axe-core's best practices that the page breaks.
func Axe(t testing.TB, page *rod.Page) {
	t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	// Through the debugger, not through a script element: the page's
	// Content-Security-Policy stays in force.
	if _, err := p.Evaluate(rod.Eval("() => {" + axeCore + "}")); err != nil {
		t.Fatalf("load axe-core: %v", err)
	}
	result, err := p.Evaluate(rod.Eval(`async () => JSON.stringify((r => ({violations: r.violations, passes: r.passes.length}))(await axe.run(document, {
		runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
		rules: {"target-size": {enabled: true}},
		resultTypes: ["violations"],
	})))`).ByPromise())
	if err != nil {
		t.Fatalf("run axe-core: %v", err)
	}
	var report struct {
		Violations []violation
		Passes     int
	}
	if err := json.Unmarshal([]byte(result.Value.Str()), &report); err != nil {
		t.Fatalf("read axe-core's report: %v", err)
	}
	if report.Passes == 0 {
		t.Fatal("axe-core checked nothing")
	}
	where := "page"
	if info, err := page.Info(); err == nil {
		where = info.URL
	}
	for _, v := range report.Violations {
		var b strings.Builder
		for _, n := range v.Nodes {
			fmt.Fprintf(&b, "\n  %s\n    %s", n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", "\n    "))
		}
		t.Errorf("%s breaks %s (%s): %s%s", where, v.ID, v.Impact, v.Help, b.String())
	}
}

// NoSideways fails the test when a page is wider than its window: WCAG 2.2, 1.4.10.
func NoSideways(t testing.TB, page *rod.Page) {
	t.Helper()
	r, err := page.Eval(`() => ({over: document.documentElement.scrollWidth - document.documentElement.clientWidth, at: location.href})`)
	if err != nil {
		t.Fatalf("measure page: %v", err)
	}
	if over := r.Value.Get("over").Int(); over > 0 {
		t.Errorf("%s is %d pixels wider than its window", r.Value.Get("at").Str(), over)
	}
}

// Shot keeps a picture of the whole page as name.png in $GUICHET_ARTEFACTS, or in
// .artefacts/screens at the root of the repository, and returns its path.
func Shot(t testing.TB, page *rod.Page, name string) string {
	t.Helper()
	p := page.Timeout(patience)
	defer p.CancelTimeout()
	png, err := p.Screenshot(true, &proto.PageCaptureScreenshot{Format: proto.PageCaptureScreenshotFormatPng})
	if err != nil {
		t.Fatalf("picture %s: %v", name, err)
	}
	file := filepath.Join(Artefacts(t), name+".png")
	if err := os.WriteFile(file, png, 0o644); err != nil {
		t.Fatalf("picture %s: %v", name, err)
	}
	return file
}

// Artefacts returns the folder that pictures are kept in, making it.
func Artefacts(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GUICHET_ARTEFACTS")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			if root == filepath.Dir(root) {
				t.Fatal("no go.mod above the working directory: set GUICHET_ARTEFACTS")
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, ".artefacts", "screens")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
