package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// demo holds the demonstration data: departments, accounts, fees, bills and the
// mapping to SAP. Amounts are the city's as published at some time, or invented;
// all of it says that it is a demonstration.
//
//go:embed demo
var demo embed.FS

// demoDepartments are what a stack starts with.
var demoDepartments = []struct{ code, en, fr, hst string }{
	{"parking", "Parking and by-law fines (demo)", "Stationnement et contraventions (démo)", ""},
	{"permits", "Building permits (demo)", "Permis de construire (démo)", "00000 0000 RT0001"},
	{"water", "Water and wastewater (demo)", "Eau et eaux usées (démo)", ""},
}

// A step of the seed that made something, for whoever prints what happens.
type seeded func(what string, result map[string]any)

// seed sets up the demo departments through the administration commands, as an
// operator would. What a stack has already is left alone; secrets are shown once
// by the commands and kept in the stack's directory.
func (s *stack) seed(ctx context.Context, tell seeded) error {
	dir := filepath.Join(s.dir, "demo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"accounts.csv", "fees.csv", "mapping.csv"} {
		text, err := demo.ReadFile("demo/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	for _, d := range demoDepartments {
		if err := s.admin(ctx, tell, "department "+d.code, nil, "department", d.code, d.en, d.fr, "--hst-number="+d.hst); err != nil {
			return err
		}
	}
	for _, file := range []string{"accounts", "fees", "mapping"} {
		if err := s.admin(ctx, tell, file, nil, file, filepath.Join(dir, file+".csv")); err != nil {
			return err
		}
	}
	for _, d := range demoDepartments {
		if err := s.seedSecrets(ctx, tell, d.code, d.en, d.fr); err != nil {
			return err
		}
	}
	return nil
}

// seedSecrets gives a department its client, key and webhook, and keeps each the
// moment it is shown.
func (s *stack) seedSecrets(ctx context.Context, tell seeded, code, en, fr string) error {
	app := s.ports.url(portApp)
	for _, step := range []struct {
		what, field string
		kept        func(*departmentSecrets) *string
		args        []string
	}{
		{
			"OIDC client " + code + "-app", "client_secret", func(d *departmentSecrets) *string { return &d.ClientSecret },
			[]string{"client", code, code + "-app", en, fr, "--redirect-uri=" + app + "/" + code + "/callback", "--post-logout-uri=" + app + "/" + code},
		},
		{
			"API key of " + code, "api_key", func(d *departmentSecrets) *string { return &d.APIKey },
			[]string{"key", code, "demo application"},
		},
		{
			"webhook endpoint of " + code, "secret", func(d *departmentSecrets) *string { return &d.WebhookSecret },
			[]string{"webhook", code, app + "/hooks/" + code, "--private"},
		},
	} {
		have := s.secrets.Departments[code]
		if *step.kept(&have) != "" {
			continue
		}
		result := map[string]any{}
		if err := s.admin(ctx, tell, step.what, result, step.args...); err != nil {
			return fmt.Errorf("%w (if a start was cut short here, make dev-reset starts over)", err)
		}
		secret, ok := result[step.field].(string)
		if !ok || secret == "" {
			return fmt.Errorf("%s: the command showed no %s", step.what, step.field)
		}
		*step.kept(&have) = secret
		s.secrets.Departments[code] = have
		if err := s.secrets.save(); err != nil {
			return err
		}
	}
	return nil
}

// admin runs one administration command and reads the JSON it prints.
func (s *stack) admin(ctx context.Context, tell seeded, what string, result map[string]any, args ...string) error {
	if result == nil {
		result = map[string]any{}
	}
	if err := s.command(ctx, &result, append([]string{"admin"}, args...)...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	tell(what, result)
	return nil
}

// command runs a command of this program as an operator would, with the stack's
// settings, and reads the JSON it prints.
func (s *stack) command(ctx context.Context, result any, args ...string) error {
	var out, errs bytes.Buffer
	if err := run(ctx, args, env{get: s.get, out: &out, err: &errs}); err != nil {
		return fmt.Errorf("guichet %s: %w\n%s", args[0], err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		return fmt.Errorf("guichet %s printed no JSON: %w", args[0], err)
	}
	return nil
}
