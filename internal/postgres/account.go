package postgres

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// An account is the user the server runs as when we are root. A nil account is
// the user of this process.
type account struct {
	uid, gid uint32
	name     string
}

// unprivileged chooses whom to run as: the owner of the data when there is data,
// else postgres, else nobody. It returns nil when this process is not root.
func unprivileged(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(data); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return &account{st.Uid, st.Gid, "of uid " + strconv.Itoa(int(st.Uid))}, nil
		}
		return nil, fmt.Errorf("database directory %s belongs to root, and PostgreSQL does not run as root: remove it or give it to an ordinary user", data)
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &account{uint32(uid), uint32(gid), name}, nil
	}
	return nil, fmt.Errorf("PostgreSQL does not run as root and there is no user postgres or nobody: run as an ordinary user")
}

// own gives a file to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, a.name, err)
	}
	return nil
}

// reachable checks that the account gets into dir. A home of mode 0700 on the way
// is the usual fault, and PostgreSQL's own message for it helps nobody.
func reachable(dir string, a *account) error {
	if a == nil {
		return nil
	}
	for p := dir; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return fmt.Errorf("database directory: %w", err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		bit := os.FileMode(0o001)
		switch {
		case st.Uid == a.uid:
			bit = 0o100
		case st.Gid == a.gid:
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return fmt.Errorf("user %s, who runs PostgreSQL for root, cannot enter %s: choose a directory elsewhere, for example under /var/lib", a.name, p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}
