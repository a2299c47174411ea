package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"guichet/internal/database"
)

type demoCmd struct {
	Dir  string `default:"${demodir}" help:"Where the run's files and its database are; emptied at the start. Default ${demodir}."`
	JSON bool   `name:"json" help:"Print each step as a line of JSON."`
}

// Run tells the whole story from nothing: what a run before left, finished or
// killed, is removed first.
func (c *demoCmd) Run(ctx context.Context, e env) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	started := time.Now()
	place, err := claim(dir, "demo")
	if err != nil {
		return err
	}
	defer place.release() //nolint:errcheck // the process ends
	if err := place.empty(); err != nil {
		return fmt.Errorf("remove the demo before: %w", err)
	}
	databaseURL, err := newDemoDatabase(ctx, e.get("DATABASE_URL"))
	if err != nil {
		return err
	}
	log, logFile, err := stackLog(dir, slog.LevelInfo)
	if err != nil {
		return err
	}
	defer logFile.Close()
	s, err := startStack(ctx, stackOptions{Place: place, DatabaseURL: databaseURL, Database: demoDatabase, Log: log})
	if err != nil {
		return err
	}
	story := &story{stack: s, out: e.out, json: c.JSON, files: filepath.Join(dir, "files")}
	err = story.tell(ctx)
	if stopped := s.stop(); err == nil {
		err = stopped
	}
	if err == nil {
		story.end(time.Since(started), logFile.Name())
	}
	return err
}

const demoDatabase = "guichet_demo"

// newDemoDatabase makes, on a given server, a database of the demo's own beside the
// given one, and returns its address.
func newDemoDatabase(ctx context.Context, databaseURL string) (string, error) {
	if databaseURL == "" {
		return "", nil
	}
	if err := database.CheckOwner(ctx, databaseURL); err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return "", fmt.Errorf("demo database: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is left to say
	for _, sql := range []string{"drop database if exists " + demoDatabase + " with (force)", "create database " + demoDatabase} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return "", fmt.Errorf("demo database (DATABASE_URL must allow creating databases): %w", err)
		}
	}
	return database.Named(databaseURL, demoDatabase)
}

// A story is the main job, told step by step.
type story struct {
	*stack
	out   io.Writer
	json  bool
	files string // directory of what it produces
	steps int

	resident, guest *browser
	signedUp        bool
	subject         map[string]string // pairwise, by department
	bills           []raised
	receipts        map[string]string // payer → address of the receipt
	payout          payout
	business        string // the business date that settles
}

type payout struct {
	ID     string `json:"id"`
	Amount int64  `json:"amount"`
}

// A fact is one thing a step produced.
type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// tell runs the steps in order and stops at the first that fails.
func (st *story) tell(ctx context.Context) error {
	if err := os.MkdirAll(st.files, 0o755); err != nil {
		return err
	}
	for _, step := range []struct {
		title string
		do    func(context.Context) ([]fact, error)
	}{
		{"Three departments are set up by the administration commands", st.setUp},
		{"A resident signs up at a department's application, and in at the others", st.signIn},
		{"The departments raise bills through the API", st.raise},
		{"The resident pays three bills of three departments at once; a guest pays a fine", st.pay},
		{"The processor's webhooks arrive late, out of order and twice", st.hooks},
		{"Receipts, mail and the departments' webhooks", st.tellThem},
		{"Two business days later the processor pays out and the bank reports", st.payOut},
		{"The nightly run explains the bank's line and writes the SAP documents", st.night},
		{"SAP checks, posts and answers", st.sapAnswers},
		{"A line that no payment explains waits for a person", st.trouble},
		{"The books are proved", st.prove},
	} {
		st.steps++
		began := time.Now()
		facts, err := step.do(ctx)
		st.print(step.title, facts, time.Since(began), err)
		if err != nil {
			return fmt.Errorf("step %d: %w", st.steps, err)
		}
	}
	return nil
}

func (st *story) print(title string, facts []fact, took time.Duration, err error) {
	if st.json {
		line := struct {
			Step    int     `json:"step"`
			Title   string  `json:"title"`
			OK      bool    `json:"ok"`
			Seconds float64 `json:"seconds"`
			Facts   []fact  `json:"facts"`
			Error   string  `json:"error,omitempty"`
		}{st.steps, title, err == nil, took.Round(time.Millisecond).Seconds(), facts, ""}
		if err != nil {
			line.Error = err.Error()
		}
		json.NewEncoder(st.out).Encode(line) //nolint:errcheck // the reader has gone
		return
	}
	mark := "ok"
	if err != nil {
		mark = "FAILED"
	}
	fmt.Fprintf(st.out, "%2d  %s  [%s, %s]\n", st.steps, title, mark, took.Round(10*time.Millisecond))
	for _, f := range facts {
		fmt.Fprintf(st.out, "      %-34s %s\n", f.Name, f.Value)
	}
}

func (st *story) end(took time.Duration, logFile string) {
	if st.json {
		return
	}
	fmt.Fprintf(st.out, "\nThe main job is done in %s. Files: %s  Log: %s\n", took.Round(100*time.Millisecond), st.files, logFile)
}

// until waits for something that happens in the background, or tells what did not.
func until(ctx context.Context, what string, happened func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		ok, err := happened(ctx)
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited in vain: %s", what), err)
		case <-time.After(pollEvery):
		}
	}
}

// keep writes a file the story produced and returns the fact of it.
func (st *story) keep(name string, content []byte) (fact, error) {
	path := filepath.Join(st.files, name)
	return fact{"file", path}, os.WriteFile(path, content, 0o644)
}

// setUp is step 1.
func (st *story) setUp(ctx context.Context) ([]fact, error) {
	var facts []fact
	err := st.seed(ctx, func(what string, result map[string]any) {
		var parts []string
		for _, name := range []string{"id", "client_id", "accounts", "fees", "added"} {
			if v, ok := result[name]; ok {
				parts = append(parts, fmt.Sprint(v))
			}
		}
		if len(parts) == 0 {
			parts = []string{"made (secret shown once, kept by the application)"}
		}
		facts = append(facts, fact{what, strings.Join(parts, ", ")})
	})
	if err != nil {
		return facts, err
	}
	return facts, st.startApp()
}

// mailText waits for the newest message to an address whose subject holds words.
func (st *story) mail(ctx context.Context, to, subject string) (caught, error) {
	var found caught
	err := until(ctx, fmt.Sprintf("mail to %s about %q", to, subject), func(ctx context.Context) (bool, error) {
		var page struct {
			Data []caught `json:"data"`
		}
		if err := get(ctx, st.ports.url(portMail)+"/_control/messages?to="+to, &page); err != nil {
			return false, err
		}
		for _, m := range page.Data {
			if strings.Contains(m.Subject, subject) {
				found = m
				return true, nil
			}
		}
		return false, nil
	})
	return found, err
}

// A caught message is what the mail catcher tells of one.
type caught struct {
	Subject     string `json:"subject"`
	Text        string `json:"text"`
	Attachments []struct {
		Name string `json:"name"`
		Size int    `json:"size"`
		URL  string `json:"url"`
	} `json:"attachments"`
}

// verifyExport is how another accounting program checks the export.
func (st *story) export(ctx context.Context, format, name string) (string, error) {
	var out, errs bytes.Buffer
	if err := run(ctx, []string{"export", "--format=" + format}, env{get: st.get, out: &out, err: &errs}); err != nil {
		return "", fmt.Errorf("export %s: %w", format, err)
	}
	path := filepath.Join(st.files, name)
	return path, os.WriteFile(path, out.Bytes(), 0o644)
}
