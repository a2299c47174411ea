package desk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"guichet/api/web"
	"guichet/internal/table"
	"guichet/ledger/report"
	"guichet/reconcile"
)

// maxRows bounds the lists that are read whole before they leave. One that is longer
// is refused, never cut: a figure that is missing half its rows is worse than none.
const maxRows = 100_000

// wholeList asks for all that such a file may hold, and one row more to know.
var wholeList = reconcile.Page{Limit: maxRows + 1}

var errTooMany = errors.New("too many rows for a file")

// tableOf makes a table of a list read with a limit of maxRows + 1.
func tableOf[T any](h *Handler, name, file string, columns []table.Column, list []T, row func(T) []any) (table.Table, error) {
	if len(list) > maxRows {
		return table.Table{}, errTooMany
	}
	return table.Table{Name: name, File: file, Columns: columns, At: h.Now(), Rows: table.Of(list, row)}, nil
}

// files are the routes of one table in every format; the ending says which.
func (h *Handler) files(pattern string, roles []string, ask func(context.Context, view, *http.Request) (table.Table, error)) []route {
	var list []route
	for _, f := range table.Formats() {
		list = append(list, route{http.MethodGet, pattern + "." + string(f), roles, false, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), fileTime)
			defer cancel()
			t, err := ask(ctx, h.view(r), r)
			if err == nil {
				err = h.send(w, r, t, f)
			}
			if err != nil {
				h.fail(w, r, "make table", err)
			}
		}})
	}
	return list
}

const (
	// A page has a minute; a file of millions of lines takes longer. A reader who does
	// not take any of it for a minute is given up.
	fileTime  = time.Hour
	stallTime = time.Minute
	// What fails before so much was written is still told as a page.
	firstBytes = 64 << 10
)

// send answers with a table as a file. What fails after the first bytes have left
// cuts the connection off: a file that arrives is whole.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, t table.Table, f table.Format) error {
	h.titles(&t, web.Lang(r))
	name := t.File
	if name == "" {
		name = t.Name
	}
	d := &download{w: w, control: http.NewResponseController(w), mediaType: f.MediaType(), name: name + "." + string(f)}
	deliver := d.stream
	if !r.ProtoAtLeast(1, 1) {
		deliver = d.spool
	}
	err := deliver(func(out io.Writer) error { return t.Write(out, f) })
	if err != nil && d.begun {
		h.Log.WarnContext(r.Context(), "a file was cut off", "name", t.Name, "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// titles puts the headings into the reader's language.
func (h *Handler) titles(t *table.Table, lang string) {
	t.Title = h.Site.T(lang, "desk.table."+slug.Replace(t.Name))
	for i := range t.Columns {
		t.Columns[i].Title = h.Site.T(lang, "desk.col."+t.Columns[i].Key)
	}
	for i := range t.Asked {
		t.Asked[i].Title = h.Site.T(lang, "desk.col."+t.Asked[i].Key)
	}
}

// reports are the ledger's, in the reader's language.
func (h *Handler) reports(v view) report.Reports {
	return report.Reports{Books: h.Books, DB: h.DB, Now: h.Now, Lang: v.Lang}
}

// A download is a file on its way. Its header leaves with its first bytes.
type download struct {
	w         http.ResponseWriter
	control   *http.ResponseController
	mediaType string
	name      string
	begun     bool
}

func (d *download) Write(p []byte) (int, error) {
	if !d.begun {
		d.header()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stallTime) // for the machine's time: the business clock may run ahead of it
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := d.control.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	return d.w.Write(p)
}

func (d *download) header() {
	d.begun = true
	header := d.w.Header()
	header.Set("Content-Type", d.mediaType)
	header.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s"`, plain(d.name)))
	header.Set("Cache-Control", "private, no-store")
	header.Set("X-Content-Type-Options", "nosniff")
}

// stream sends what write makes as it comes.
func (d *download) stream(write func(io.Writer) error) error {
	out := bufio.NewWriterSize(d, firstBytes)
	if err := write(out); err != nil {
		return err
	}
	return out.Flush()
}

// spool sends what write makes with its length. HTTP/1.0, which some proxies speak, has
// no other sign by which the end of a file differs from a broken connection.
func (d *download) spool(write func(io.Writer) error) (err error) {
	file, err := os.CreateTemp("", "guichet-"+path.Base(plain(d.name))+"-*")
	if err != nil {
		return fmt.Errorf("keep %s: %w", d.name, err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if err := write(file); err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("keep %s: %w", d.name, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("keep %s: %w", d.name, err)
	}
	d.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, _ = io.Copy(d, file) // the length tells a reader who was cut off
	return nil
}

// whole answers with a file that is in memory.
func whole(w http.ResponseWriter, mediaType, name string, data []byte) {
	d := &download{w: w, mediaType: mediaType, name: name}
	d.header()
	_, _ = w.Write(data) // a reader who has gone away is nobody's error
}

// plain leaves of a name what every file system and every header takes: parts of it
// may be the processor's or the bank's.
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, name)
}

// A fileLink is one format of a page's table.
type fileLink struct{ Href, Label string }

// Files are where the table of this page is to be had, with the filters of the page
// and more of them, given as names and values.
func (v view) Files(base string, more ...string) []fileLink {
	q := v.filters()
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	query := ""
	if len(q) > 0 {
		query = "?" + q.Encode()
	}
	var list []fileLink
	for _, f := range table.Formats() {
		list = append(list, fileLink{base + "." + string(f) + query, strings.ToUpper(string(f))})
	}
	return list
}
