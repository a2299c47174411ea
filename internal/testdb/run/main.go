// Command run starts one PostgreSQL for a whole test run, tells the command after
// "--" about it in GUICHET_TEST_POSTGRES, and ends with that command's exit status.
// With the variable already set it only runs the command.
//
//	go run ./internal/testdb/run -- go test ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"guichet/internal/testdb"
)

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testdb/run:", err)
	}
	os.Exit(status)
}

func run(args []string) (status int, err error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return 2, errors.New("usage: run -- command arguments…")
	}
	// Ctrl-C reaches the command too; we wait for it and then stop the server.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	if os.Getenv(testdb.Variable) == "" {
		s, startErr := testdb.Start(ctx)
		if startErr != nil {
			return 1, startErr
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		cmd.Env = append(cmd.Env, testdb.Variable+"="+s.URL("postgres"))
	}
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil // -1: ended by a signal
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
