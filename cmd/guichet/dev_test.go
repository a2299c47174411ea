package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"guichet/internal/testdb"
)

var (
	printedLink   = regexp.MustCompile(`(?m)^  (\S.*?)\s{2,}(http://\S+)$`)
	printedNotice = regexp.MustCompile(`(?m)^  notice (\S+), plate (.+)$`)
)

// A town is a running `guichet dev`, as its terminal shows it.
type town struct {
	*child
	links   map[string]string
	notices [][]string // the notice and its plate
}

// dev starts `guichet dev` on free ports and reads what it prints.
func (h how) dev(t *testing.T, dir string, more ...string) *town {
	t.Helper()
	args := append([]string{"dev", "--dir", dir}, more...)
	if !slices.ContainsFunc(more, func(a string) bool { return strings.HasPrefix(a, "--port") }) {
		args = append(args, "--port=0")
	}
	d := &town{child: h.start(t, args...), links: map[string]string{}}
	d.says("Log: ")
	for _, m := range printedLink.FindAllStringSubmatch(d.out.String(), -1) {
		d.links[m[1]] = m[2]
	}
	for _, m := range printedNotice.FindAllStringSubmatch(d.out.String(), -1) {
		d.notices = append(d.notices, m[1:])
	}
	for _, name := range []string{"Resident portal", "Demo department: permits", "Staff desk", "Mail catcher", "API documentation", "Metrics"} {
		if d.links[name] == "" {
			t.Fatalf("no link to %s in:\n%s", name, d.out)
		}
	}
	if len(d.notices) == 0 {
		t.Fatalf("no notice to pay in:\n%s", d.out)
	}
	return d
}

// end is Ctrl-C: everything stops, in order, and nothing is left.
func (d *town) end(dir string) {
	d.t.Helper()
	d.interrupt()
	if code := d.code(); code != 0 || d.errs.String() != "" {
		d.t.Errorf("after an interrupt: exit status %d, errors %q", code, d.errs)
	}
	gone(d.t, dir)
}

// port is the portal's.
func (d *town) port() string {
	return d.links["Resident portal"][strings.LastIndex(d.links["Resident portal"], ":")+1:]
}

// opens fails the test unless every link leads to a page.
func (d *town) opens() {
	d.t.Helper()
	for name, address := range d.links {
		resp, err := http.Get(address)
		if err != nil {
			d.t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			d.t.Errorf("%s: %s answers %s", name, address, resp.Status)
		}
	}
}

// signUp signs a resident up at the permits department's application, as a person
// without JavaScript does.
func (d *town) signUp(ctx context.Context, email string) *browser {
	d.t.Helper()
	b := newBrowser()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	must(b.open(ctx, d.links["Demo department: permits"]+"/login?lang=en"))
	must(b.press(ctx, "email", map[string]string{"email": email}))
	var inbox struct {
		Data []caught `json:"data"`
	}
	must(until(ctx, "the mail with the code", func(ctx context.Context) (bool, error) {
		err := get(ctx, d.links["Mail catcher"]+"/_control/messages?to="+email, &inbox)
		return len(inbox.Data) == 1, err
	}))
	code := strings.Map(digit, eightDigits.FindString(inbox.Data[0].Text))
	must(b.press(ctx, "code", map[string]string{"code": code}))
	must(b.press(ctx, "profile", map[string]string{"name": "Demo Resident", "language": "en"}))
	must(b.press(ctx, "agree", nil))
	if !b.says("Demo Resident") || !strings.HasPrefix(b.page.url.String(), d.links["Demo department: permits"]) {
		d.t.Fatalf("after signing up: %s says %q", b.page.url, b.heading())
	}
	return b
}

func digit(r rune) rune {
	if r < '0' || r > '9' {
		return -1
	}
	return r
}

// knows fails the test unless the portal knows the resident in the browser.
func (d *town) knows(ctx context.Context, b *browser) {
	d.t.Helper()
	if err := b.open(ctx, d.links["Resident portal"]+"/account?lang=en"); err != nil {
		d.t.Fatal(err)
	}
	if !b.says("Demo Resident") {
		d.t.Errorf("the resident is not signed in any more: %s says %q", b.page.url, b.heading())
	}
}

func TestDevContinuesWhereItStopped(t *testing.T) {
	t.Parallel()
	dir := stateOf(t, nil)
	first := how{}.dev(t, dir)
	first.opens()
	if len(processes(dir)) < 2 && exists(t, "/proc/self/cmdline") {
		t.Errorf("want the program and its database among the processes, found %q", processes(dir))
	}
	ctx := t.Context()
	b := first.signUp(ctx, "lea@example.ca")
	if err := b.press(ctx, "/permits/order", nil); err != nil {
		t.Fatal(err)
	}
	first.end(dir)

	// What was typed, paid or ordered is there after an orderly end and after a kill.
	second := how{}.dev(t, dir)
	if !slices.EqualFunc(first.notices, second.notices, slices.Equal) {
		t.Errorf("the second start offers the notices %q, the first %q", second.notices, first.notices)
	}
	second.opens()
	second.knows(ctx, b)
	signedInAgain(t, second, b)
	second.kill()

	third := how{}.dev(t, dir)
	third.knows(ctx, b)
	signedInAgain(t, third, b)
	third.end(dir)
	if out := third.out.String(); !strings.Contains(out, "stopping") {
		t.Errorf("an interrupt is not answered:\n%s", out)
	}
}

func TestDevInterruptedBeforeItIsReady(t *testing.T) {
	t.Parallel()
	dir := stateOf(t, nil)
	first := how{}.start(t, "dev", "--dir", dir, "--port=0")
	eventually(t, func() bool { return exists(t, filepath.Join(dir, "postgres", "lock")) })
	first.interrupt()
	if code := first.code(); code != 0 || first.errs.String() != "" || strings.Count(first.out.String(), "\n") != 1 {
		t.Errorf("exit status %d, %q, errors %q; want one line", code, first.out, first.errs)
	}
	gone(t, dir)
	second := how{}.dev(t, dir)
	second.opens()
	second.end(dir)
}

// signedInAgain signs the resident in at the department's application once more:
// its sessions do not outlive it, its registration does, and so does the bill.
func signedInAgain(t *testing.T, d *town, b *browser) {
	t.Helper()
	ctx := t.Context()
	if err := b.open(ctx, d.links["Demo department: permits"]+"/login"); err != nil {
		t.Fatal(err)
	}
	if !b.says("Demo Resident") || !b.says("$184.19") {
		t.Errorf("signed in again, %s says %q", b.page.url, text(b.page.root))
	}
}

func TestDevSaysWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	t.Run("a port that is in use", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		how{}.start(t, "dev", "--dir", stateOf(t, nil), "--port", port).oneLine("port "+port+" is in use", "--port")
	})
	t.Run("no database server where PG_BIN points", func(t *testing.T) {
		t.Parallel()
		how{env: []string{"PG_BIN=/nowhere"}}.start(t, "dev", "--dir", stateOf(t, nil), "--port=0").oneLine("PG_BIN=/nowhere", "initdb", "DATABASE_URL")
	})
	t.Run("a database that does not answer", func(t *testing.T) {
		t.Parallel()
		how{env: []string{"DATABASE_URL=postgres://nobody@127.0.0.1:1/none"}}.start(t, "dev", "--dir", stateOf(t, nil), "--port=0").oneLine("DATABASE_URL")
	})
	t.Run("a directory that may not be written", func(t *testing.T) {
		t.Parallel()
		who := nobody(t)
		how{as: who}.start(t, "dev", "--dir", filepath.Join(stateOf(t, nil), "dev"), "--port=0").oneLine("data directory", "permission denied")
	})
}

func TestDevIsAloneInItsDirectory(t *testing.T) {
	t.Parallel()
	dir := stateOf(t, nil)
	first := how{}.dev(t, dir)
	how{}.start(t, "dev", "--dir", dir, "--port=0").oneLine(dir, "in use")
	how{}.start(t, "demo", "--dir", dir).oneLine(dir)
	how{}.start(t, "dev", "--dir", dir, "--reset").oneLine(dir, "in use")
	first.opens()
	b := first.signUp(t.Context(), "lea@example.ca")
	first.knows(t.Context(), b)
	first.end(dir)

	// The addresses of the demo applications hold the port: another one would break them.
	other, err := listen(make([]int, portCount))
	if err != nil {
		t.Fatal(err)
	}
	free := strconv.Itoa(other.number(portPortal))
	other.close()
	how{}.start(t, "dev", "--dir", dir, "--port", free).oneLine("--port "+first.port(), "--reset")

	reset := how{}.start(t, "dev", "--dir", dir, "--reset")
	if code := reset.code(); code != 0 || !strings.Contains(reset.out.String(), "removed "+dir) || exists(t, dir) {
		t.Errorf("reset: exit status %d, %s%s, directory still there: %v", code, reset.out, reset.errs, exists(t, dir))
	}
	again := how{}.start(t, "dev", "--dir", dir, "--reset")
	if code := again.code(); code != 0 || !strings.Contains(again.out.String(), "nothing") {
		t.Errorf("reset of nothing: exit status %d, %s%s", code, again.out, again.errs)
	}
}

func TestResetRemovesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"holiday.jpg", "secrets.json", "guichet.log"} {
		t.Run("not a directory with "+name, func(t *testing.T) {
			t.Parallel()
			dir := stateOf(t, nil)
			if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			how{}.start(t, "dev", "--dir", dir, "--reset").oneLine(dir)
			how{}.start(t, "dev", "--dir", dir, "--port=0").oneLine(dir)
			how{}.start(t, "demo", "--dir", dir).oneLine(dir, "--dir")
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("left in the directory: %v, %v; want %s alone", entries, err, name)
			}
		})
	}
}

// givenDatabase is a new database on a server of its own, whose user may create
// roles and databases and nothing else. The program may not find another server.
func givenDatabase(t *testing.T) how {
	t.Helper()
	server, err := testdb.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	address, err := server.Database(t.Context(), "given")
	if err != nil {
		t.Fatal(err)
	}
	return how{env: []string{"DATABASE_URL=" + address, "PG_BIN=/nowhere"}}
}

func TestDevWithAGivenDatabase(t *testing.T) {
	t.Parallel()
	given := givenDatabase(t)
	dir := stateOf(t, nil)
	first := given.dev(t, dir)
	first.opens()
	b := first.signUp(t.Context(), "lea@example.ca")
	first.end(dir)
	second := given.dev(t, dir)
	second.knows(t.Context(), b)

	// A second stack would find the first one's data without its keys and simulators.
	other := stateOf(t, nil)
	given.start(t, "dev", "--dir", other, "--port=0").oneLine("DATABASE_URL")
	if reset := given.start(t, "dev", "--dir", other, "--reset"); reset.code() != 0 || strings.Contains(reset.out.String(), "database") {
		t.Errorf("reset of an empty directory: %s%s", reset.out, reset.errs)
	}
	second.opens()
	second.knows(t.Context(), b)
	second.end(dir)

	reset := given.start(t, "dev", "--dir", dir, "--reset")
	if code := reset.code(); code != 0 || !strings.Contains(reset.out.String(), "emptied the database") {
		t.Errorf("reset: exit status %d: %s%s", code, reset.out, reset.errs)
	}
	third := given.dev(t, dir)
	third.opens()
	third.end(dir)
}

func TestDevAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	who := nobody(t)
	dir := stateOf(t, who)
	d := how{as: who, env: []string{fmt.Sprintf("HOME=%s", dir)}}.dev(t, dir)
	d.opens()
	d.end(dir)
}
