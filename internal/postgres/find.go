package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// oldest is the first major version the migrations are written for.
const oldest = 15

// ErrNotFound says that no usable server was found and how to get one.
var ErrNotFound = errors.New("no PostgreSQL 15 or newer found: install it (Debian: apt-get install postgresql; macOS: brew install postgresql@17), " +
	"or set PG_BIN to the folder of initdb and postgres, or set DATABASE_URL to a running server")

// A Binary is an installed server.
type Binary struct {
	Dir   string // holds initdb and postgres
	Major int
}

// Find returns the newest installed server. PG_BIN, where set, is the only place
// looked at. Debian keeps the server out of PATH, so its folders are searched first.
func Find() (Binary, error) {
	if dir := os.Getenv("PG_BIN"); dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return Binary{}, fmt.Errorf("PG_BIN=%s: %w: set it to the folder of initdb and postgres, unset it to have the usual places searched, or set DATABASE_URL to a running server", dir, err)
		}
		return b, nil
	}
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",            // Debian, Ubuntu
		"/usr/pgsql-*/bin",                     // Red Hat
		"/opt/homebrew/opt/postgresql@*/bin",   // macOS on ARM
		"/usr/local/opt/postgresql@*/bin",      // macOS on Intel
		"/usr/local/pgsql/bin",                 // built from source
		"/usr/libexec/postgresql*",             // Alpine
		"/Library/PostgreSQL/*/bin",            // EDB installer
		"/Applications/Postgres.app/*/*/*/bin", // Contents/Versions/<n>
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return Binary{}, fmt.Errorf("look for PostgreSQL in %s: %w", pattern, err)
		}
		dirs = append(dirs, found...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	var usable []Binary
	for _, dir := range dirs {
		if b, err := inspect(dir); err == nil {
			usable = append(usable, b)
		}
	}
	if len(usable) == 0 {
		return Binary{}, ErrNotFound
	}
	return slices.MaxFunc(usable, func(a, b Binary) int { return cmp.Compare(a.Major, b.Major) }), nil
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

func inspect(dir string) (Binary, error) {
	if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err != nil {
		return Binary{}, errors.New("no initdb there")
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binary{}, fmt.Errorf("ask postgres for its version: %w", err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Binary{}, fmt.Errorf("postgres calls itself %q", out)
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil || major < oldest {
		return Binary{}, fmt.Errorf("version %s is older than %d", m[1], oldest)
	}
	return Binary{Dir: dir, Major: major}, nil
}
