package main

import (
	"testing"

	"guichet/internal/testdb"
)

func TestCommandGetsTheServerAndItsExitStatusCounts(t *testing.T) {
	t.Setenv(testdb.Variable, "") // set when this test itself runs under the command
	if status, err := run([]string{"--", "sh", "-c", `test -n "$` + testdb.Variable + `" && exit 7`}); status != 7 || err != nil {
		t.Errorf("status %d, %v; want 7", status, err)
	}
	t.Setenv(testdb.Variable, "postgres://elsewhere")
	for _, tt := range []struct {
		script string
		want   int
	}{{`test "$` + testdb.Variable + `" = postgres://elsewhere`, 0}, {"kill -9 $$", 1}} {
		if status, err := run([]string{"--", "sh", "-c", tt.script}); status != tt.want || err != nil {
			t.Errorf("%s: status %d, %v; want %d", tt.script, status, err, tt.want)
		}
	}
	if status, err := run([]string{"--", "no-such-command"}); status == 0 || err == nil {
		t.Errorf("a command that does not exist: status %d, %v", status, err)
	}
	if status, err := run(nil); status != 2 || err == nil {
		t.Errorf("no command: status %d, %v", status, err)
	}
}
