package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// childDir makes this test binary a process that starts a server and waits to be killed.
const childDir = "GUICHET_TEST_POSTGRES_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

func child(dir string) {
	b, err := Find()
	if err == nil {
		var s *Server
		if s, err = run(context.Background(), &Server{opts: Options{Dir: dir, Durable: true}, bin: b, freePort: freePort}); err == nil {
			var url string
			if url, err = s.Database(context.Background(), "guichet"); err == nil {
				fmt.Println(url)
				select {}
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// directory is a place for a server that root's unprivileged user can enter;
// t.TempDir is closed to others.
func directory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "guichet-postgres-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func rows(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "select count(*) from kept").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSecondStartContinuesWhereTheFirstStopped(t *testing.T) {
	t.Parallel()
	o := Options{Dir: filepath.Join(directory(t), "a"), Durable: true}
	if err := os.Mkdir(o.Dir, 0o700); err != nil { // as a careful umask makes it
		t.Fatal(err)
	}
	s := start(t, o)
	url, err := s.Database(t.Context(), "guichet")
	if err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url)
	exec1(t, conn, "create table kept (n int)")
	exec1(t, conn, "insert into kept values (1)")
	if err := s.Stop(); err != nil { // ends the open session
		t.Fatal(err)
	}
	select {
	case <-s.Ended():
	default:
		t.Error("Stop returned while the server runs")
	}

	again := start(t, o)
	url, err = again.Database(t.Context(), "guichet")
	if err != nil {
		t.Fatalf("the database is there already: %v", err)
	}
	if n := rows(t, connect(t, url)); n != 1 {
		t.Errorf("%d rows after the second start, want 1", n)
	}
}

func TestOwnerIsNoSuperuserAndPasswordIsAsked(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Dir: directory(t)})
	var super, role, db bool
	err := connect(t, s.URL("postgres")).QueryRow(t.Context(),
		"select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user").Scan(&super, &role, &db)
	if err != nil || super || !role || !db {
		t.Errorf("owner: super %v, createrole %v, createdb %v, %v; want false, true, true", super, role, db, err)
	}
	exec1(t, connect(t, s.SuperURL("postgres")), "select pg_reload_conf()")
	wrong := strings.Replace(s.URL("postgres"), s.password, "guess", 1)
	if conn, err := pgx.Connect(t.Context(), wrong); err == nil {
		conn.Close(t.Context())
		t.Error("a wrong password gets in")
	}
}

func TestOneDirectoryHasOneServer(t *testing.T) {
	t.Parallel()
	o := Options{Dir: directory(t)}
	start(t, o)
	_, err := Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d: stop it", os.Getpid())) {
		t.Errorf("second start: %v; want who uses the directory and what to do", err)
	}
}

func TestPortClashIsTriedAgain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	taken, asked := l.Addr().(*net.TCPAddr).Port, 0
	s, err := run(t.Context(), &Server{opts: Options{Dir: directory(t)}, bin: b, freePort: func() (int, error) {
		if asked++; asked <= 2 {
			return taken, nil
		}
		return freePort()
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if asked != 3 || s.port == taken {
		t.Errorf("runs on port %d after asking %d times; %d was taken twice", s.port, asked, taken)
	}
}

// startChild runs a server in a process of its own and returns it with the URL.
func startChild(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	return cmd, strings.TrimSpace(url)
}

func TestKilledParentLeavesNothingInTheWay(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	cmd, url := startChild(t, dir)
	conn := connect(t, url)
	exec1(t, conn, "create table kept (n int)")
	exec1(t, conn, "insert into kept values (1)")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	s := start(t, Options{Dir: dir, Durable: true})
	if n := rows(t, connect(t, s.URL("guichet"))); n != 1 {
		t.Errorf("%d rows after kill -9, want 1", n)
	}
}

func TestLeftoverServerIsStopped(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	s := start(t, Options{Dir: dir})
	pid, err := readPid(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil || !isPostmaster(pid, s.data()) {
		t.Fatalf("postmaster %d of %s is not recognized: %v", pid, s.data(), err)
	}
	if isPostmaster(pid, s.data()+"x") || isPostmaster(os.Getpid(), s.data()) {
		t.Error("another process passes for this postmaster")
	}
	s.unlock() // as if the process that started it were gone
	again := start(t, Options{Dir: dir})
	select {
	case <-s.Ended():
	default:
		t.Error("the leftover still runs")
	}
	exec1(t, connect(t, again.URL("postgres")), "select 1")
}

func TestStalePidFileOfAnotherProcessIsRemoved(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	s := start(t, Options{Dir: dir})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	// After a restart of the machine the number belongs to somebody else: to us.
	for _, pid := range []string{fmt.Sprint(os.Getpid()), "torn"} {
		path := filepath.Join(s.data(), "postmaster.pid")
		if err := os.WriteFile(path, []byte(pid+"\n"+s.data()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.user.own(path); err != nil {
			t.Fatal(err)
		}
		again, err := Start(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatalf("pid file %s: %v", pid, err)
		}
		if err := again.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSweepTakesTheDeadAndLeavesTheLiving(t *testing.T) {
	t.Parallel()
	parent := directory(t)
	dead, living, starting := filepath.Join(parent, "s-dead"), filepath.Join(parent, "s-living"), filepath.Join(parent, "s-starting")
	cmd, _ := startChild(t, dead)
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	start(t, Options{Dir: living})
	if err := os.Mkdir(starting, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(filepath.Join(parent, "s-*")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{dead: false, living: true, starting: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}

func TestRootIsToldOfAHomeItsServerCannotEnter(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs the server as another user")
	}
	home := directory(t)
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{Dir: filepath.Join(home, "data")})
	if err == nil || !strings.Contains(err.Error(), "cannot enter "+home+": choose a directory elsewhere") {
		t.Errorf("err = %v; want the closed directory and what to do", err)
	}
}

func TestBrokenClusterIsOneClearLine(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	s := start(t, Options{Dir: dir})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(s.data(), "global", "pg_control"), 10); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{Dir: dir})
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "pg_control") {
		t.Errorf("err = %v; want one line with PostgreSQL's reason", err)
	}
	if _, err := takeLock(dir); err != nil {
		t.Errorf("a failed start keeps the lock: %v", err)
	}
}

func TestFindSaysWhatIsWrongWithPGBIN(t *testing.T) {
	fake := t.TempDir()
	t.Setenv("PG_BIN", fake)
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), "PG_BIN="+fake) || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("empty folder: %v", err)
	}
	for name, text := range map[string]string{"initdb": "", "postgres": "echo 'postgres (PostgreSQL) 14.11'"} {
		if err := os.WriteFile(filepath.Join(fake, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), "version 14 is older than 15") {
		t.Errorf("version 14: %v", err)
	}
	t.Setenv("PG_BIN", "")
	if b, err := Find(); err != nil || b.Major < oldest {
		t.Errorf("Find() = %+v, %v", b, err)
	}
}

func TestServerThatEndsIsNoticed(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Dir: directory(t)})
	pid, err := readPid(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Ended():
	case <-time.After(stopWithin):
		t.Fatal("Ended is not closed")
	}
	if err := s.Stop(); err != nil {
		t.Errorf("stopping what has ended: %v", err)
	}
	if _, err := s.Database(t.Context(), "x"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a database on an ended server: %v", err)
	}
}
