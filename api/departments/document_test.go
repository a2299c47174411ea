package departments_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"guichet/api/departments"
)

var update = flag.Bool("update", false, "rewrite the documents in testdata")

const golden = "testdata/openapi.json"

// TestDocumentIsTheOneReviewed compares what is served, to anybody, with the
// document that was last reviewed: the API is a contract.
func TestDocumentIsTheOneReviewed(t *testing.T) {
	w := newWorld(t)
	a := w.call(t, request{method: "GET", path: "/openapi.json"})
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d as %s", a.status, a.header.Get("Content-Type"))
	}
	var got bytes.Buffer
	must(t, json.Indent(&got, []byte(a.body), "", "  "))
	got.WriteByte('\n')
	if *update {
		must(t, os.WriteFile(golden, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the document is not that of %s; review the difference after go test -update", golden)
	}
}

// TestDocumentHolds checks what the specification asks and schemas cannot.
func TestDocumentHolds(t *testing.T) {
	w := newWorld(t)
	for _, fault := range documentFaults(w.doc) {
		t.Error(fault)
	}
	text, err := json.Marshal(w.doc)
	must(t, err)
	refs := 0
	for _, m := range regexp.MustCompile(`"\$ref":"([^"]*)"`).FindAllStringSubmatch(string(text), -1) {
		refs++
		name, ok := strings.CutPrefix(m[1], "#/components/schemas/")
		if !ok || w.doc.Components.Schemas.Map()[name] == nil {
			t.Errorf("%s leads nowhere", m[1])
		}
	}
	if refs < 10 {
		t.Errorf("only %d references were looked at", refs)
	}
	for name, s := range w.doc.Components.Schemas.Map() {
		for member, p := range s.Properties {
			for _, example := range p.Examples {
				text, err := json.Marshal(example)
				must(t, err)
				for _, fault := range w.faults(t, p, string(text)) {
					t.Errorf("%s.%s: its example is %s: %s", name, member, text, fault)
				}
			}
		}
	}
	var codes []any
	for _, k := range departments.Kinds {
		codes = append(codes, string(k.Code))
	}
	if got := w.doc.Components.Schemas.Map()["Problem"].Properties["code"].Enum; !slices.Equal(got, codes) {
		t.Errorf("the document names the codes %q, want %q", got, codes)
	}
	if got := w.doc.OpenAPI; got != "3.1.0" {
		t.Errorf("the document is OpenAPI %s", got)
	}
}

// TestExamplesWork sends the examples of the document as they are.
func TestExamplesWork(t *testing.T) {
	w := newWorld(t)
	var created string
	keyFor := map[bool]string{false: "parking", true: "parking journal"}
	for _, opID := range []string{"create-bill", "create-checkout", "cancel-bill", "create-journal-entry", "create-journal-entries"} {
		i := slices.IndexFunc(w.operations(), func(op *huma.Operation) bool { return op.OperationID == opID })
		op := w.operations()[i]
		text, err := json.Marshal(op.RequestBody.Content["application/json"].Example)
		must(t, err)
		body := strings.ReplaceAll(string(text), departments.ExampleBill, created)
		a := w.call(t, request{method: "POST", path: pathOf(op, created), department: keyFor[forJournal(op)], key: opID, body: body})
		if a.status != op.DefaultStatus {
			t.Errorf("%s: status %d: %s", opID, a.status, a.body)
		}
		if opID == "create-bill" {
			created = as[object](t, a, 201)["id"].(string)
		}
	}
}

func documentFaults(doc *huma.OpenAPI) (faults []string) {
	seen := map[string]bool{}
	check := func(path string, op *huma.Operation) {
		if op == nil {
			return
		}
		if op.OperationID == "" || seen[op.OperationID] {
			faults = append(faults, op.Method+" "+path+": its operationId is empty or used twice")
		}
		seen[op.OperationID] = true
		var declared []string
		for _, p := range op.Parameters {
			if p.In == "path" && p.Required {
				declared = append(declared, p.Name)
			}
		}
		for _, m := range regexp.MustCompile(`\{([^}]*)\}`).FindAllStringSubmatch(path, -1) {
			if !slices.Contains(declared, m[1]) {
				faults = append(faults, path+": its parameter "+m[1]+" is not described as required")
			}
		}
		keyed := slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == "Idempotency-Key" && p.Required })
		keyed = keyed || op.RequestBody != nil && eachKeyed(doc, op.RequestBody.Content["application/json"].Schema)
		if strings.HasPrefix(path, "/") && (op.Method == http.MethodPost) != keyed {
			faults = append(faults, op.OperationID+": a POST, and nothing else, needs an Idempotency-Key")
		}
		for status, r := range op.Responses {
			if r.Description == "" {
				faults = append(faults, op.OperationID+": the answer "+status+" has no description")
			}
		}
	}
	for path, item := range doc.Paths {
		check(path, item.Get)
		check(path, item.Post)
	}
	for name, item := range doc.Webhooks {
		check(name, item.Post)
	}
	if len(seen) < 10 {
		faults = append(faults, "fewer than ten operations and webhooks were looked at")
	}
	return faults
}

// eachKeyed reports whether a body is a list whose members must each have a key.
func eachKeyed(doc *huma.OpenAPI, s *huma.Schema) bool {
	if s.Items == nil || s.Items.Ref == "" {
		return false
	}
	return slices.Contains(doc.Components.Schemas.SchemaFromRef(s.Items.Ref).Required, "idempotency_key")
}

func TestTheCheckOfTheDocumentSeesFaults(t *testing.T) {
	bad := &huma.OpenAPI{Paths: map[string]*huma.PathItem{"/x/{id}": {Post: &huma.Operation{Method: http.MethodPost, Responses: map[string]*huma.Response{"200": {}}}}}}
	if faults := documentFaults(bad); len(faults) != 5 {
		t.Errorf("five faults, seen: %q", faults)
	}
}

// TestDocumentIsOpenAPI asks another program, with the specification's own schema.
func TestDocumentIsOpenAPI(t *testing.T) {
	dir := validator(t)
	document, err := filepath.Abs(golden)
	must(t, err)
	if out, err := exec.Command("node", filepath.Join(dir, "validate.mjs"), document).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	text, err := os.ReadFile(golden)
	must(t, err)
	broken := filepath.Join(t.TempDir(), "broken.json")
	must(t, os.WriteFile(broken, bytes.Replace(text, []byte(`"responses"`), []byte(`"answers"`), 1), 0o644))
	if err := exec.Command("node", filepath.Join(dir, "validate.mjs"), broken).Run(); err == nil {
		t.Error("the validator accepts a broken document")
	}
}

// validator returns a folder with the program and npm's validator as the lock file
// names it, fetched once per machine.
func validator(t *testing.T) string {
	t.Helper()
	const src = "testdata/validator"
	lock, err := os.ReadFile(filepath.Join(src, "package-lock.json"))
	must(t, err)
	sum := sha256.Sum256(lock)
	cache, err := os.UserCacheDir()
	must(t, err)
	modules := filepath.Join(cache, "guichet-test", "openapi-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(modules); err != nil {
		must(t, os.MkdirAll(filepath.Dir(modules), 0o755))
		half, err := os.MkdirTemp(filepath.Dir(modules), "half-")
		must(t, err)
		defer os.RemoveAll(half)
		must(t, os.CopyFS(half, os.DirFS(src)))
		npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
		npm.Dir = half
		if out, err := npm.CombinedOutput(); err != nil {
			missing(t, "npm ci of the validator (needs node 20, npm and its registry)", errors.New(err.Error()+": "+string(out)))
		}
		if err := os.Rename(half, modules); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "install node 20", err)
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(src)))
	must(t, os.Symlink(filepath.Join(modules, "node_modules"), filepath.Join(dir, "node_modules")))
	return dir
}

// missing skips where a tool is not installed, but never under CI.
func missing(t *testing.T, why string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: %v", why, err)
	}
	t.Skipf("%s: %v", why, err)
}
