package departments_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"guichet/api/departments"
	"guichet/internal/id"
	"guichet/payments/bill"
)

// pathOf fills in an operation's path parameter.
func pathOf(op *huma.Operation, objectID string) string {
	return strings.ReplaceAll(op.Path, "{id}", objectID)
}

// bodies are what the POSTs take, beside the path.
func (w *world) bodies(billID string) map[string]any {
	return map[string]any{
		"create-bill":     w.fine(),
		"cancel-bill":     object{"reason": "issued in error"},
		"create-checkout": object{"bills": []string{billID}},

		"create-journal-entry":   payroll(),
		"create-journal-entries": []any{with(payroll(), "idempotency_key", id.New())},
	}
}

// TestTenancyWalk takes every operation of the document and tries it with the key
// of another department, and without a good key.
func TestTenancyWalk(t *testing.T) {
	w := newWorld(t)
	resident := id.New()
	w.subjects[[2]string{w.Depart["parking"].ID, "parkings-subject"}] = resident
	mine := w.create(t)
	checkout := w.open(t, mine.ID)
	entry := w.record(t)
	objects := map[string]string{"/bills/{id}": mine.ID, "/bills/{id}/cancel": mine.ID, "/checkouts/{id}": checkout.ID, "/journal-entries/{id}": entry.ID}
	bodies := w.bodies(mine.ID)
	uncovered := w.walk(w.operations(), objects, bodies, func(op *huma.Operation, r request) {
		t.Run(op.OperationID+"/without a good key", func(t *testing.T) { w.tryKeys(t, r) })
		t.Run(op.OperationID+"/with a key of the other kind", func(t *testing.T) { w.tryOtherKind(t, op, r) })
		t.Run(op.OperationID+"/with another department's key", func(t *testing.T) { w.tryForeign(t, op, r) })
	})
	for _, what := range uncovered {
		t.Errorf("the walk does not cover %s", what)
	}
	got := as[departments.Bill](t, w.call(t, request{method: "GET", path: "/bills/" + mine.ID, department: "parking"}), 200)
	if got.State != bill.Open || got.Version != 1 {
		t.Errorf("after the walk the bill is %s, version %d", got.State, got.Version)
	}
}

// walk visits every operation with a request that its owner could make, and
// returns those for which it knows no object or body.
func (w *world) walk(ops []*huma.Operation, objects map[string]string, bodies map[string]any, visit func(*huma.Operation, request)) (uncovered []string) {
	for _, op := range ops {
		r := request{method: op.Method, path: op.Path, key: id.New()}
		if strings.Contains(op.Path, "{") {
			objectID, ok := objects[op.Path]
			if !ok {
				uncovered = append(uncovered, op.OperationID)
				continue
			}
			r.path = pathOf(op, objectID)
		}
		if op.RequestBody != nil {
			if r.body = bodies[op.OperationID]; r.body == nil {
				uncovered = append(uncovered, op.OperationID)
				continue
			}
		}
		visit(op, r)
	}
	if len(ops) < 6 {
		uncovered = append(uncovered, "more than five operations: the document has lost some")
	}
	return uncovered
}

func TestTheWalkSeesWhatIsNotCovered(t *testing.T) {
	w := newWorld(t)
	ops := append(w.operations(), &huma.Operation{OperationID: "read-secret", Method: "GET", Path: "/secrets/{id}"},
		&huma.Operation{OperationID: "create-secret", Method: "POST", Path: "/secrets", RequestBody: &huma.RequestBody{}})
	objects := map[string]string{"/bills/{id}": "x", "/bills/{id}/cancel": "x", "/checkouts/{id}": "x", "/journal-entries/{id}": "x"}
	got := w.walk(ops, objects, w.bodies("x"), func(*huma.Operation, request) {})
	if want := []string{"read-secret", "create-secret"}; !slices.Equal(got, want) {
		t.Errorf("uncovered: %q, want %q", got, want)
	}
	if got := w.walk(nil, nil, nil, nil); len(got) != 1 {
		t.Errorf("an empty document is called covered: %q", got)
	}
}

func (w *world) tryKeys(t *testing.T, r request) {
	var revoked string
	w.Do(t, func(tx pgx.Tx) (err error) {
		d := w.Depart["parking"]
		if revoked, err = w.Depts.IssueKey(t.Context(), tx, d.ID, "old", "test"); err != nil {
			return err
		}
		var keyID string
		if err := tx.QueryRow(t.Context(), `select id::text from department.api_key where hash = $1`, id.Hash(revoked)).Scan(&keyID); err != nil {
			return err
		}
		return w.Depts.RevokeKey(t.Context(), tx, d.ID, keyID)
	})
	for name, authorization := range map[string]string{
		"none": "", "empty": "Bearer ", "unknown": "Bearer guichet_test_" + id.Secret(), "revoked": "Bearer " + revoked,
		"another scheme": "Basic cGFya2luZzpzZWNyZXQ=", "the key alone": w.keys["parking"], "odd characters": "Bearer \x80\xff'; --",
	} {
		r.header = http.Header{"Authorization": {authorization}}
		a := w.call(t, r)
		if a.status != 401 || a.problem(t).Code != "unauthorized" {
			t.Errorf("%s: status %d, want 401: %s", name, a.status, a.body)
		}
		refused := strings.Contains(a.header.Get("WWW-Authenticate"), "invalid_token") // RFC 6750, 3.1
		if shown := name == "unknown" || name == "revoked"; shown && !refused {
			t.Errorf("%s: WWW-Authenticate does not say invalid_token", name)
		}
	}
}

// forJournal reports whether an operation takes journal keys.
func forJournal(op *huma.Operation) bool {
	return len(op.Security) == 1 && op.Security[0]["journal-key"] != nil
}

// tryOtherKind: an ordinary key opens nothing of the journal, and a journal key
// nothing else.
func (w *world) tryOtherKind(t *testing.T, op *huma.Operation, r request) {
	r.department = "parking journal"
	if forJournal(op) {
		r.department = "parking"
	}
	if a := w.call(t, r); a.status != 403 || a.problem(t).Code != "forbidden" {
		t.Errorf("status %d, want 403: %s", a.status, a.body)
	}
}

// tryForeign expects of another department's objects exactly what it expects of
// objects that nobody has.
func (w *world) tryForeign(t *testing.T, op *huma.Operation, r request) {
	r.department = "water"
	if forJournal(op) {
		r.department = "water journal"
	}
	if strings.Contains(op.Path, "{id}") {
		foreign := w.call(t, r)
		r.path, r.key = pathOf(op, id.New()), id.New()
		nobodys := w.call(t, r)
		if foreign.status != 404 || foreign.body != nobodys.body {
			t.Errorf("another's object: status %d: %s; nobody's: status %d: %s", foreign.status, foreign.body, nobodys.status, nobodys.body)
		}
		return
	}
	switch op.OperationID { // operations that name objects elsewhere than in the path
	case "create-bill":
		w.foreignInBill(t, r)
	case "create-checkout":
		w.foreignInCheckout(t, r)
	case "create-journal-entry", "create-journal-entries":
		w.foreignKeyOfEntry(t, r)
	case "find-journal-entry":
		r.path += "?idempotency_key=" + walked
		if a := w.call(t, r); a.status != 404 {
			t.Errorf("another's key: status %d, want 404: %s", a.status, a.body)
		}
	case "list-bills":
		for _, query := range []string{"", "?owner=parkings-subject", "?state=open"} {
			r.path = op.Path + query
			page := as[departments.BillPage](t, w.call(t, r), 200)
			for _, b := range page.Data {
				if strings.HasPrefix(b.Lines[0].Fee, "parking") {
					t.Errorf("%s lists another department's bill %s", r.path, b.ID)
				}
			}
			if query == "?owner=parkings-subject" && len(page.Data) > 0 {
				t.Errorf("another department's subject has %d bills", len(page.Data))
			}
		}
	default:
		t.Errorf("the walk does not know where %s names objects", op.OperationID)
	}
}

func (w *world) foreignInBill(t *testing.T, r request) {
	for name, body := range map[string]struct {
		foreign, nobodys any
		at               string
	}{
		"subject": {"parkings-subject", "nobodys-subject", "owner_subject"},
		"fee":     {[]any{object{"fee": "parking-wrong-way"}}, []any{object{"fee": "no-such-fee"}}, "lines"},
	} {
		var answers []answer
		for _, value := range []any{body.foreign, body.nobodys} {
			ask := w.fine()
			ask["lines"] = []any{object{"fee": "water-consumption", "amount_cents": 100}}
			ask[body.at] = value
			r.body, r.key = ask, id.New()
			answers = append(answers, w.call(t, r))
		}
		if answers[0].status != 422 || answers[0].body != answers[1].body {
			t.Errorf("another's %s: status %d: %s; nobody's: %s", name, answers[0].status, answers[0].body, answers[1].body)
		}
	}
}

func (w *world) foreignInCheckout(t *testing.T, r request) {
	own := w.Issue(t, w.Bill("water", "water-consumption", 100)).ID
	foreign := r.body.(object)["bills"].([]string)[0]
	for _, bills := range [][]string{{foreign}, {own, foreign}, {own, id.New()}, {"x"}} {
		r.body, r.key = object{"bills": bills}, id.New()
		if a := w.call(t, r); a.status != 404 {
			t.Errorf("a checkout of %q: status %d, want 404: %s", bills, a.status, a.body)
		}
	}
}

func TestErrorsOfTheFrameAreProblems(t *testing.T) {
	w := newWorld(t)
	good := func(change func(*request)) request {
		r := request{method: "POST", path: "/bills", department: "parking", key: id.New(), body: w.fine()}
		change(&r)
		return r
	}
	header := func(name, value string) request {
		return good(func(r *request) { r.header = http.Header{name: {value}} })
	}
	body := func(text string) request { return good(func(r *request) { r.body = text }) }
	tests := map[string]struct {
		r      request
		status int
		code   departments.Code
	}{
		"no such resource":           {request{method: "GET", path: "/invoices"}, 404, "not-found"},
		"the root":                   {request{method: "GET", path: ""}, 404, "not-found"},
		"the root with a slash":      {request{method: "GET", path: "/"}, 404, "not-found"},
		"a path below an operation":  {request{method: "GET", path: "/bills/x/lines", department: "parking"}, 404, "not-found"},
		"an id of another form":      {request{method: "GET", path: "/bills/x", department: "parking"}, 404, "not-found"},
		"an id with a NUL":           {request{method: "GET", path: "/bills/%00", department: "parking"}, 404, "not-found"},
		"an id with a slash":         {request{method: "GET", path: "/bills/..%2F..%2Fetc", department: "parking"}, 404, "not-found"},
		"a method it does not know":  {good(func(r *request) { r.method = "DELETE" }), 405, "method-not-allowed"},
		"too large":                  {body(`{"type":"` + strings.Repeat("a", 1<<20) + `"}`), 413, "too-large"},
		"exactly at the limit":       {body(strings.Repeat(" ", 1<<20)), 413, "too-large"},
		"a form":                     {header("Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported-media-type"},
		"no content type":            {header("Content-Type", ""), 415, "unsupported-media-type"},
		"a content type of nonsense": {header("Content-Type", "json;;;=+"), 415, "unsupported-media-type"},
		"another JSON":               {header("Content-Type", "application/merge-patch+json"), 415, "unsupported-media-type"},
		"another encoding":           {header("Content-Type", "application/json; charset=utf-16"), 415, "unsupported-media-type"},
		"compressed":                 {header("Content-Encoding", "gzip"), 415, "unsupported-media-type"},
		"no body":                    {good(func(r *request) { r.body = "" }), 400, "bad-request"},
		"no JSON":                    {body("type=fine"), 400, "bad-request"},
		"half a JSON":                {body(`{"type":"fine"`), 400, "bad-request"},
		"two JSONs":                  {body(`{} {}`), 400, "bad-request"},
		"not UTF-8":                  {body("{\"type\":\"\xe9\"}"), 400, "bad-request"},
		"a number beyond all":        {body(`{"type":1e999}`), 400, "bad-request"},
		"a member twice":             {body(`{"type":"fine","type":"fine"}`), 400, "bad-request"},
		"a member twice, escaped":    {body(`{"lines":[1,{"fee":"a","quantity":2},{"fee":"a","f\u0065e":"b"}]}`), 400, "bad-request"},
		"nested without end":         {body(strings.Repeat("[", 20000)), 400, "bad-request"},
		"a list":                     {body(`[]`), 422, "invalid"},
		"null":                       {body(`null`), 422, "invalid"},
		"no idempotency key":         {good(func(r *request) { r.key = "" }), 422, "invalid"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := w.call(t, tt.r)
			if a.status != tt.status || a.problem(t).Code != tt.code {
				t.Errorf("status %d, %s; want %d, %s", a.status, a.body, tt.status, tt.code)
			}
		})
	}
	for name, value := range map[string]string{"media types have no case": "Application/JSON", "UTF-8 may be named": `application/json; charset="UTF-8"`} {
		if a := w.call(t, header("Content-Type", value)); a.status != 201 {
			t.Errorf("%s: status %d: %s", name, a.status, a.body)
		}
	}
	if a := w.call(t, header("Authorization", "bearer  "+w.keys["parking"])); a.status != 201 {
		t.Errorf("the scheme has no case (RFC 9110, 11.1): status %d", a.status)
	}
	for _, accept := range []string{"application/problem+json", "json", "text/html", "*/*;q=x", ""} {
		a := w.call(t, request{method: "GET", path: "/bills", department: "parking", header: http.Header{"Accept": {accept}}})
		if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("asked for %q: status %d as %s", accept, a.status, a.header.Get("Content-Type"))
		}
	}
	for path, want := range map[string]string{"/bills": "GET, POST", "/journal-entries": "GET, POST", "/bills/x/cancel": "POST", "/checkouts/x": "GET", "/openapi.json": "GET"} {
		if a := w.call(t, request{method: "PUT", path: path}); a.status != 405 || a.header.Get("Allow") != want {
			t.Errorf("PUT %s: status %d, Allow %q; want 405, %q", path, a.status, a.header.Get("Allow"), want)
		}
	}
	if strings.Contains(w.log.String(), "level=ERROR") {
		t.Error("a caller's mistake is logged as an error of ours")
	}
}

func TestABodyWithBrokenChunksIsTheCallersMistake(t *testing.T) {
	w := newWorld(t)
	u, err := url.Parse(w.url)
	must(t, err)
	conn, err := net.Dial("tcp", u.Host)
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s/bills HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nIdempotency-Key: k\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
		u.Path, u.Host, w.keys["parking"])
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("status %d as %s, want a problem with 400", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}

func TestWrongFieldsAreNamed(t *testing.T) {
	w := newWorld(t)
	own := w.create(t)
	line := func(member string, value any) func(object) {
		return func(o object) { o["lines"].([]any)[0].(object)[member] = value }
	}
	set := func(member string, value any) func(object) {
		return func(o object) { o[member] = value }
	}
	without := func(member string) func(object) { return func(o object) { delete(o, member) } }
	bills := map[string]struct {
		spoil func(object)
		at    string
	}{
		"a member that is missing":             {without("reference"), "body"},
		"a member that is unknown":             {set("colour", "red"), "body.colour"},
		"a member in capitals":                 {set("Type", "fine"), "body.Type"},
		"an unknown member of a line":          {line("price", 3), "body.lines[0].price"},
		"an unknown member that is no name":    {set("4242 4242 4242 4242", 1), "body"},
		"null where a value must be":           {set("type", nil), "body.type"},
		"null for the lines":                   {set("lines", nil), "body.lines"},
		"a number for a text":                  {set("type", 1), "body.type"},
		"an empty type":                        {set("type", ""), "body.type"},
		"a type with a space":                  {set("type", "a b"), "body.type"},
		"a reference of 65 characters":         {set("reference", strings.Repeat("r", 65)), "body.reference"},
		"a reference with an accent":           {set("reference", "é"), "body.reference"},
		"a reference with a NUL":               {set("reference", "a\x00b"), "body.reference"},
		"a guest key of punctuation":           {set("guest_key", "--"), "body.guest_key"},
		"nobody who could pay":                 {without("guest_key"), "body"},
		"a subject that is unknown":            {set("owner_subject", "nobody"), "body.owner_subject"},
		"a subject with a NUL":                 {set("owner_subject", "\x00"), "body.owner_subject"},
		"no date":                              {set("issued_on", "yesterday"), "body.issued_on"},
		"a date that does not exist":           {set("due_on", "2026-02-30"), "body.due_on"},
		"the year nought":                      {set("issued_on", "0000-01-01"), "body.issued_on"},
		"a date of another age":                {set("due_on", "9999-12-31"), "body.due_on"},
		"due before issue":                     {set("due_on", "2000-01-01"), "body.due_on"},
		"no lines":                             {set("lines", []any{}), "body.lines"},
		"101 lines":                            {set("lines", slices.Repeat([]any{object{"fee": "parking-wrong-way"}}, 101)), "body.lines"},
		"a fee that is no code":                {line("fee", "Parking"), "body.lines[0].fee"},
		"a fee that is unknown":                {line("fee", "no-such-fee"), "body.lines[0].fee"},
		"a negative quantity":                  {line("quantity", -1), "body.lines[0].quantity"},
		"half a piece":                         {line("quantity", 0.5), "body.lines[0].quantity"},
		"a quantity beyond the bound":          {line("quantity", 10_001), "body.lines[0].quantity"},
		"an amount beyond 64 bits":             {line("amount_cents", 1e30), "body.lines[0].amount_cents"},
		"a negative amount":                    {line("amount_cents", -1), "body.lines[0].amount_cents"},
		"an amount for a fee with a price":     {line("amount_cents", 1), "body.lines[0].amount_cents"},
		"a description in one language":        {line("description", object{"en": "Fine"}), "body.lines[0].description"},
		"a description with a line break":      {line("description", object{"en": "a\nb", "fr": "a"}), "body.lines[0].description.en"},
		"a description with a control from C1": {line("description", object{"en": "a", "fr": "\u0085"}), "body.lines[0].description.fr"},
	}
	for name, tt := range bills {
		t.Run("bill/"+name, func(t *testing.T) {
			ask := w.fine()
			tt.spoil(ask)
			a := w.call(t, request{method: "POST", path: "/bills", department: "parking", key: id.New(), body: ask})
			if a.status != 422 || !slices.Contains(a.locations(t), tt.at) {
				t.Errorf("status %d: %s; want 422 at %s", a.status, a.body, tt.at)
			}
		})
	}
	others := map[string]struct {
		r  request
		at string
	}{
		"an amount missing for a variable fee": {request{method: "POST", path: "/bills", department: "water", body: object{
			"type": "water", "reference": "w", "guest_key": "1",
			"issued_on": "2026-01-01", "due_on": "2026-01-01", "lines": []any{object{"fee": "water-consumption"}},
		}}, "body.lines[0].amount_cents"},
		"more than a billion dollars": {request{method: "POST", path: "/bills", department: "water", body: object{
			"type": "water", "reference": "w", "guest_key": "1",
			"issued_on": "2026-01-01", "due_on": "2026-01-01", "lines": []any{object{"fee": "water-consumption", "amount_cents": 1_000_000_000, "quantity": 10_000}},
		}}, "body.lines"},
		"an integer with an exponent": {request{method: "POST", path: "/bills", department: "water", body: `{"type":"water","reference":"w","guest_key":"1","issued_on":"2026-01-01",
			"due_on":"2026-01-01","lines":[{"fee":"water-consumption","amount_cents":1e2}]}`}, "body"},
		"no reason":                     {request{method: "POST", path: "/bills/" + own.ID + "/cancel", body: object{"reason": ""}}, "body.reason"},
		"a reason with a NUL":           {request{method: "POST", path: "/bills/" + own.ID + "/cancel", body: object{"reason": "\x00"}}, "body.reason"},
		"no bills":                      {request{method: "POST", path: "/checkouts", body: object{"bills": []string{}}}, "body.bills"},
		"null bills":                    {request{method: "POST", path: "/checkouts", body: object{"bills": nil}}, "body.bills"},
		"a bill twice":                  {request{method: "POST", path: "/checkouts", body: object{"bills": []string{own.ID, own.ID}}}, "body.bills[1]"},
		"a language we do not speak":    {request{method: "POST", path: "/checkouts", body: object{"bills": []string{own.ID}, "lang": "de"}}, "body.lang"},
		"a return over plain HTTP":      {request{method: "POST", path: "/checkouts", body: object{"bills": []string{own.ID}, "return_url": "http://permits.example.ca/"}}, "body.return_url"},
		"a return to a script":          {request{method: "POST", path: "/checkouts", body: object{"bills": []string{own.ID}, "return_url": "javascript:alert(1)"}}, "body.return_url"},
		"a return with a user name":     {request{method: "POST", path: "/checkouts", body: object{"bills": []string{own.ID}, "return_url": "https://a@b.example/"}}, "body.return_url"},
		"a return that is no address":   {request{method: "POST", path: "/checkouts", body: object{"bills": []string{own.ID}, "return_url": "https://a b/%zz"}}, "body.return_url"},
		"a state that is unknown":       {request{method: "GET", path: "/bills?state=lost"}, "query.state"},
		"a limit of nought":             {request{method: "GET", path: "/bills?limit=0"}, "query.limit"},
		"a limit that is no number":     {request{method: "GET", path: "/bills?limit=many"}, "query.limit"},
		"a limit beyond 64 bits":        {request{method: "GET", path: "/bills?limit=99999999999999999999"}, "query.limit"},
		"a cursor that is none":         {request{method: "GET", path: "/bills?cursor=x"}, "query.cursor"},
		"an owner with a NUL":           {request{method: "GET", path: "/bills?owner=%00"}, "query.owner"},
		"an owner that is not UTF-8":    {request{method: "GET", path: "/bills?owner=%ff"}, "query.owner"},
		"an unknown parameter":          {request{method: "GET", path: "/bills?page=2"}, "query.page"},
		"a parameter that is no name":   {request{method: "GET", path: "/bills?a%20b=2"}, "query"},
		"an idempotency key of Latin 1": {request{method: "POST", path: "/checkouts", key: "\xe9", body: object{"bills": []string{own.ID}}}, "header.Idempotency-Key"},
		"an idempotency key of 256":     {request{method: "POST", path: "/checkouts", key: strings.Repeat("k", 256), body: object{"bills": []string{own.ID}}}, "header.Idempotency-Key"},
		"no idempotency key":            {request{method: "POST", path: "/checkouts", header: http.Header{"Idempotency-Key": nil}, body: object{"bills": []string{own.ID}}}, "header.Idempotency-Key"},
	}
	for name, tt := range others {
		t.Run(name, func(t *testing.T) {
			if tt.r.department == "" {
				tt.r.department = "parking"
			}
			if tt.r.key == "" {
				tt.r.key = id.New()
			}
			a := w.call(t, tt.r)
			if a.status != 422 || !slices.Contains(a.locations(t), tt.at) {
				t.Errorf("status %d: %s; want 422 at %s", a.status, a.body, tt.at)
			}
		})
	}
	if strings.Contains(w.log.String(), "level=ERROR") {
		t.Error("a caller's mistake is logged as an error of ours")
	}
}

// canary is a value that nobody may see again.
const canary = "hunter2-4242424242424242"

// TestRejectedValuesAreNotRepeated puts a value in every place that the document
// describes, in every wrong form, and looks for it in the answers and the log.
func TestRejectedValuesAreNotRepeated(t *testing.T) {
	w := newWorld(t)
	own := w.create(t)
	objects := map[string]string{"/bills/{id}": own.ID, "/bills/{id}/cancel": own.ID, "/checkouts/{id}": id.New(), "/journal-entries/{id}": id.New()}
	tried := 0
	try := func(what string, r request) {
		t.Helper()
		tried++
		if a := w.call(t, r); a.status >= 400 && strings.Contains(a.body, "hunter2") || strings.Contains(fmt.Sprint(a.header), "hunter2") {
			t.Errorf("%s: %s", what, a.body)
		}
	}
	wrong := []any{canary, canary + "\x00", strings.Repeat(canary, 200), []any{canary}, object{canary: canary}, "https://" + canary + ":x:y/%zz", "urn:uuid:" + canary}
	w.walk(w.operations(), objects, w.bodies(own.ID), func(op *huma.Operation, r request) {
		r.department = map[bool]string{false: "parking", true: "parking journal"}[forJournal(op)]
		for _, p := range op.Parameters {
			spoilt := r
			switch p.In {
			case "path":
				spoilt.path = pathOf(op, canary)
			case "query":
				spoilt.path += "?" + p.Name + "=" + canary + "%00"
			case "header":
				spoilt.key = canary + "\xe9"
			}
			try(op.OperationID+" "+p.In+" "+p.Name, spoilt)
		}
		if op.RequestBody == nil {
			r.path += "?" + canary + "=1"
			try(op.OperationID+", an unknown parameter", r)
			return
		}
		for _, text := range []string{canary, `{"` + canary, `"` + canary + `"`, `{"` + canary + `":1}`, "[\"" + canary + "\xff\"]", `{"type":` + canary + `}`} {
			r.body = text
			try(op.OperationID+" with "+text, r)
		}
		for _, v := range wrong {
			for _, spoilt := range spoil(w.doc, op.RequestBody.Content["application/json"].Schema, w.bodies(own.ID)[op.OperationID], v) {
				r.body, r.key = spoilt, id.New()
				try(fmt.Sprintf("%s with %v", op.OperationID, spoilt), r)
			}
		}
		r.header = http.Header{"Content-Type": {"application/" + canary}}
		try(op.OperationID+", content type", r)
	})
	if tried < 100 {
		t.Errorf("only %d places were tried", tried)
	}
	if strings.Contains(w.log.String(), "hunter2") {
		t.Error("the log repeats a rejected value")
	}
	conflict := request{method: "POST", path: "/bills", department: "parking", key: canary, body: w.fine()}
	w.call(t, conflict)
	conflict.body = w.fine()
	if a := w.call(t, conflict); a.status != 409 || strings.Contains(a.body, "hunter2") {
		t.Errorf("a conflict: status %d: %s", a.status, a.body)
	}
}

// spoil returns copies of a good body, each with one of its schema's members
// replaced by a value.
func spoil(doc *huma.OpenAPI, s *huma.Schema, good, v any) (list []any) {
	for s.Ref != "" {
		s = doc.Components.Schemas.SchemaFromRef(s.Ref)
	}
	list = append(list, v)
	switch s.Type {
	case huma.TypeObject:
		members, _ := good.(object)
		for name, member := range s.Properties {
			for _, spoilt := range spoil(doc, member, members[name], v) {
				o := object{name: spoilt}
				for k, m := range members {
					if k != name {
						o[k] = m
					}
				}
				list = append(list, o)
			}
		}
	case huma.TypeArray:
		var first any
		if items, ok := good.([]any); ok && len(items) > 0 {
			first = items[0]
		}
		for _, spoilt := range spoil(doc, s.Items, first, v) {
			list = append(list, []any{spoilt})
		}
	}
	return list
}

// TestIdempotency tries every POST of the document: the same again, at once and
// after, and another with the same key.
func TestIdempotency(t *testing.T) {
	w := newWorld(t)
	own, other := w.create(t), w.create(t)
	again := map[string][]request{ // the same key, for something else
		"create-bill":     {{path: "/bills", body: w.fine()}},
		"cancel-bill":     {{path: "/bills/" + other.ID + "/cancel", body: object{"reason": "issued in error"}}, {path: "/bills/" + own.ID + "/cancel", body: object{"reason": "another"}}},
		"create-checkout": {{path: "/checkouts", body: object{"bills": []string{other.ID}}}, {path: "/checkouts", body: object{"bills": []string{own.ID}, "lang": "fr"}}},

		"create-journal-entry": {{path: "/journal-entries", body: with(payroll(), "reference", "another")}},
	}
	count := func() (n int) {
		must(t, w.DB.QueryRow(t.Context(), `
			select (select count(*) from payments.bill) + (select count(*) from payments.checkout) + (select count(*) from ledger.journal_entry)
				+ (select count(*) from department.event)`).Scan(&n))
		return n
	}
	objects := map[string]string{"/bills/{id}": own.ID, "/bills/{id}/cancel": own.ID, "/checkouts/{id}": own.ID}
	tried := 0
	w.walk(w.operations(), objects, w.bodies(own.ID), func(op *huma.Operation, r request) {
		if op.Method != http.MethodPost || op.OperationID == "create-journal-entries" { // a batch says it of each of its entries
			return
		}
		t.Run(op.OperationID, func(t *testing.T) {
			tried++
			suffix := map[bool]string{true: " journal"}[forJournal(op)]
			r.department = "parking" + suffix
			answers := make([]answer, 50)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() { answers[i] = w.call(t, r) })
			}
			wg.Wait()
			first, before := 0, count()
			for _, a := range append(answers, w.call(t, r)) {
				if a.body != answers[0].body || a.status != op.DefaultStatus {
					t.Errorf("status %d: %s; another was told %d: %s", a.status, a.body, answers[0].status, answers[0].body)
				}
				switch a.header.Get("Idempotent-Replayed") {
				case "":
					first++
				case "true":
				default:
					t.Errorf("Idempotent-Replayed is %q", a.header.Get("Idempotent-Replayed"))
				}
			}
			if first != 1 {
				t.Errorf("%d of 51 were the first", first)
			}
			if len(again[op.OperationID]) == 0 {
				t.Error("no conflict is known for the operation")
			}
			for _, c := range again[op.OperationID] {
				c.method, c.department, c.key = "POST", r.department, r.key
				if a := w.call(t, c); a.status != 409 || a.problem(t).Code != "idempotency-conflict" {
					t.Errorf("%s %v: status %d: %s; want 409, idempotency-conflict", c.path, c.body, a.status, a.body)
				}
			}
			if after := count(); after != before {
				t.Errorf("repeats and conflicts made %d rows", after-before)
			}
			r.department = "water" + suffix // its key, its own things
			if a := w.call(t, r); a.status == 409 {
				t.Errorf("another department meets this one's key: %s", a.body)
			}
		})
	})
	if tried != 4 {
		t.Errorf("%d POSTs were tried", tried)
	}
	bills := as[departments.BillPage](t, w.call(t, request{method: "GET", path: "/bills", department: "parking"}), 200)
	if len(bills.Data) != 3 {
		t.Errorf("%d bills, want the two of before and one of 51 requests", len(bills.Data))
	}
}

func TestAReferenceIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	ask := w.fine()
	first := as[departments.Bill](t, w.call(t, request{method: "POST", path: "/bills", department: "parking", key: "1", body: ask}), 201)
	a := w.call(t, request{method: "POST", path: "/bills", department: "parking", key: "2", body: ask})
	if a.status != 409 || a.problem(t).Code != "reference-taken" {
		t.Errorf("status %d: %s; want 409, reference-taken", a.status, a.body)
	}
	if first.DueCents != 5500 || first.AmountCents != 5500 || first.Lines[0].StepCents != 2000 || first.EarlyUntil != w.Today().AddDays(15).String() {
		t.Errorf("the bill is %+v", first)
	}
}

func TestPagesShowEveryBillOnce(t *testing.T) {
	w := newWorld(t)
	resident := id.New()
	w.subjects[[2]string{w.Depart["parking"].ID, "sub"}] = resident
	var want []string
	for i := range 7 {
		ask := w.fine()
		if i%2 == 0 {
			ask["owner_subject"] = "sub"
		}
		want = append(want, as[departments.Bill](t, w.call(t, request{method: "POST", path: "/bills", department: "parking", key: id.New(), body: ask}), 201).ID)
	}
	list := func(query string) (ids []string, next string) {
		page := as[departments.BillPage](t, w.call(t, request{method: "GET", path: "/bills?" + query, department: "parking"}), 200)
		for _, b := range page.Data {
			ids = append(ids, b.ID)
		}
		return ids, page.NextCursor
	}
	var got []string
	for cursor, pages := "", 0; ; pages++ {
		ids, next := list("limit=3&cursor=" + cursor)
		got = append(got, ids...)
		if next == "" {
			break
		}
		if cursor = next; pages > 3 {
			t.Fatal("the pages do not end")
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages show %q, want %q", got, want)
	}
	if ids, _ := list("owner=sub&state=open"); len(ids) != 4 {
		t.Errorf("the resident has %d open bills, want 4", len(ids))
	}
	if ids, _ := list("owner=nobody"); len(ids) != 0 {
		t.Errorf("nobody has %d bills", len(ids))
	}
}
