// Package attachment keeps files that belong to an object: evidence, letters,
// documents. It stores the bytes as they came, with their hash, and never changes them.
//
//	upload ──Store(tx)──▶ ops.attachment ──Load──▶ download, under our own name
//
// It takes a few harmless types, proved by their content and not by what the
// sender says. Who may see a file is the room's decision.
package attachment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"guichet/internal/id"
)

// MaxSize bounds one file.
const MaxSize = 10 << 20

// What a caller may be told.
var (
	ErrNotFound = errors.New("attachment not found")
	ErrType     = errors.New("file type not accepted: PDF, PNG, JPEG, plain text or CSV")
	ErrSize     = errors.New("file is empty or larger than 10 MB")
)

// An Owner is the object a file belongs to.
type Owner struct{ Type, ID string }

// A File is an attachment; lists leave Bytes empty.
type File struct {
	ID        string
	Name      string
	MediaType string
	Size      int64
	SHA256    []byte `db:"sha256"`
	Bytes     []byte
	CreatedAt time.Time
}

// Store keeps a file in the caller's transaction and returns it. The media type is
// found from the content; of the name only the last part is kept, without what could mislead.
// It returns ErrType or ErrSize, wrapped.
func Store(ctx context.Context, tx pgx.Tx, o Owner, name string, content []byte, at time.Time) (File, error) {
	f := File{ID: id.New(), Name: cleanName(name), Size: int64(len(content)), Bytes: content, CreatedAt: at}
	if len(content) == 0 || len(content) > MaxSize {
		return File{}, fmt.Errorf("store attachment of %d bytes: %w", len(content), ErrSize)
	}
	var ok bool
	if f.MediaType, ok = mediaType(f.Name, content); !ok {
		return File{}, fmt.Errorf("store attachment: %w", ErrType)
	}
	sum := sha256.Sum256(content)
	f.SHA256 = sum[:]
	_, err := tx.Exec(ctx, `
insert into ops.attachment (id, owner_type, owner_id, name, media_type, size, sha256, bytes, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, f.ID, o.Type, o.ID, f.Name, f.MediaType, f.Size, f.SHA256, f.Bytes, f.CreatedAt)
	if err != nil {
		return File{}, fmt.Errorf("store attachment of %s %s: %w", o.Type, o.ID, err)
	}
	return f, nil
}

// mediaType tells the accepted types by their first bytes, and text by being
// nothing else: UTF-8 without control characters.
func mediaType(name string, content []byte) (string, bool) {
	switch {
	case bytes.HasPrefix(content, []byte("%PDF-")):
		return "application/pdf", true
	case bytes.HasPrefix(content, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png", true
	case bytes.HasPrefix(content, []byte("\xff\xd8\xff")):
		return "image/jpeg", true
	case !utf8.Valid(content) || bytes.ContainsFunc(content, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) }):
		return "", false
	case strings.EqualFold(path.Ext(name), ".csv"):
		return "text/csv", true
	case strings.EqualFold(path.Ext(name), ".txt"):
		return "text/plain", true
	}
	return "", false // text under another name may be a page, a picture with a script, a program
}

// cleanName keeps what a person needs to know the file again.
func cleanName(name string) string {
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	name = strings.Map(func(r rune) rune {
		// Format characters include those that turn the reading direction: "exe.fdp".
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || strings.ContainsRune(`/"<>|:*?;`, r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, name)
	name = strings.Trim(name, " .")
	const longest = 120
	if r := []rune(name); len(r) > longest {
		ext := []rune(path.Ext(name))
		if len(ext) > 10 {
			ext = nil
		}
		name = string(r[:longest-len(ext)]) + string(ext)
	}
	if name == "" {
		name = "file"
	}
	return name
}

// A Querier is a pool, connection or transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Load returns one file of an owner, or ErrNotFound, wrapped, also when it belongs
// to somebody else.
func Load(ctx context.Context, db Querier, o Owner, fileID string) (File, error) {
	if !id.Valid(fileID) {
		return File{}, fmt.Errorf("load attachment: %w", ErrNotFound)
	}
	rows, err := db.Query(ctx, `
select id, name, media_type, size, sha256, bytes, created_at from ops.attachment
where id = $1 and owner_type = $2 and owner_id = $3`, fileID, o.Type, o.ID)
	if err != nil {
		return File{}, fmt.Errorf("load attachment %s: %w", fileID, err)
	}
	f, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[File])
	if errors.Is(err, pgx.ErrNoRows) {
		return File{}, fmt.Errorf("load attachment %s: %w", fileID, ErrNotFound)
	}
	if err != nil {
		return File{}, fmt.Errorf("load attachment %s: %w", fileID, err)
	}
	if sum := sha256.Sum256(f.Bytes); !bytes.Equal(sum[:], f.SHA256) {
		return File{}, fmt.Errorf("load attachment %s: its content is not what was stored", fileID)
	}
	return f, nil
}

// List returns the files of an owner without their bytes, oldest first, at most 200.
func List(ctx context.Context, db Querier, o Owner) ([]File, error) {
	rows, err := db.Query(ctx, `
select id, name, media_type, size, sha256, null::bytea as bytes, created_at from ops.attachment
where owner_type = $1 and owner_id = $2 order by id limit 200`, o.Type, o.ID)
	if err != nil {
		return nil, fmt.Errorf("list attachments of %s %s: %w", o.Type, o.ID, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[File])
	if err != nil {
		return nil, fmt.Errorf("list attachments of %s %s: %w", o.Type, o.ID, err)
	}
	return list, nil
}
