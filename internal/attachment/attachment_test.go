package attachment

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"guichet/internal/id"
	"guichet/internal/testdb"
)

var (
	at   = time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)
	bill = Owner{"bill", "b1"}
	pdf  = []byte("%PDF-1.7 evidence")
)

func store(t *testing.T, db *pgxpool.Pool, o Owner, name string, content []byte) (f File, err error) {
	t.Helper()
	err = pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		f, err = Store(t.Context(), tx, o, name, content, at)
		return err
	})
	return f, err
}

func TestFileComesBackAsItWas(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	stored, err := store(t, db, bill, "photo de l'avis.pdf", pdf)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Load(t.Context(), db, bill, stored.ID)
	if err != nil || !bytes.Equal(got.Bytes, pdf) || got.Name != "photo de l'avis.pdf" || got.MediaType != "application/pdf" {
		t.Errorf("Load = %+v, %v", got, err)
	}
	list, err := List(t.Context(), db, bill)
	if err != nil || len(list) != 1 || list[0].ID != stored.ID || list[0].Bytes != nil {
		t.Errorf("List = %+v, %v", list, err)
	}
	for name, load := range map[string]struct {
		o  Owner
		id string
	}{
		"another owner": {Owner{"bill", "b2"}, stored.ID},
		"another type":  {Owner{"resident", "b1"}, stored.ID},
		"unknown id":    {bill, id.New()},
		"no id":         {bill, "../../etc/passwd"},
	} {
		if _, err := Load(t.Context(), db, load.o, load.id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
}

func TestOnlyHarmlessTypesAreTaken(t *testing.T) {
	t.Parallel()
	db := testdb.New(t)
	tests := []struct {
		name    string
		content string
		want    string
		err     error
	}{
		{"a.pdf", "%PDF-1.7", "application/pdf", nil},
		{"a.pdf", "<html>", "", ErrType},
		{"a.png", "\x89PNG\r\n\x1a\n...", "image/png", nil},
		{"a.jpg", "\xff\xd8\xff\xe0", "image/jpeg", nil},
		{"list.CSV", "a;é\n", "text/csv", nil},
		{"note.txt", "été\r\n", "text/plain", nil},
		{"note.txt", "a\x00b", "", ErrType},
		{"note.txt", "\xff\xfe", "", ErrType},
		{"page.html", "<script>", "", ErrType},
		{"picture.svg", "<svg onload=alert(1)>", "", ErrType},
		{"setup.exe", "MZ\x90\x00", "", ErrType},
		{"a.txt", "", "", ErrSize},
		{"a.txt", strings.Repeat("a", MaxSize+1), "", ErrSize},
	}
	for _, tt := range tests {
		f, err := store(t, db, bill, tt.name, []byte(tt.content))
		if !errors.Is(err, tt.err) || f.MediaType != tt.want {
			t.Errorf("%s %.10q: %q, %v; want %q, %v", tt.name, tt.content, f.MediaType, err, tt.want, tt.err)
		}
	}
}

func TestNamesAreMadeHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"avis n° 7.pdf":                   "avis n° 7.pdf",
		"../../etc/passwd":                "passwd",
		`C:\Users\zoe\photo.jpg`:          "photo.jpg",
		"a\r\nSet-Cookie: x=1.pdf":        "aSet-Cookie x=1.pdf",
		"evil\u202efdp.exe":               "evilfdp.exe",
		"\x00..":                          "file",
		"":                                "file",
		strings.Repeat("é", 200) + ".pdf": strings.Repeat("é", 116) + ".pdf",
		"x." + strings.Repeat("y", 200):   "x." + strings.Repeat("y", 118),
	} {
		if got := cleanName(in); got != want {
			t.Errorf("cleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	f.Add("../a\x00b\u202e.pdf")
	f.Fuzz(func(t *testing.T, in string) {
		out := cleanName(in)
		if out == "" || len([]rune(out)) > 120 || !utf8.ValidString(out) || strings.ContainsAny(out, "/\\\"\r\n\x00") || strings.ContainsFunc(out, unicode.IsControl) {
			t.Errorf("cleanName(%q) = %q", in, out)
		}
	})
}
