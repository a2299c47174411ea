package main

import (
	"context"
	"fmt"
	"path/filepath"

	"guichet/simulators/department"
)

// startApp starts the demo departments' application, once its secrets are known.
// Until then its port takes connections and does not answer.
func (s *stack) startApp() error {
	o := department.Options{
		Now: s.clock.Now, Dir: filepath.Join(s.dir, "simulators", "department"), Log: s.log.With("simulator", "department"),
		URL: s.ports.url(portApp), Issuer: s.ports.url(portPortal), API: s.ports.url(portPortal), Links: s.links(),
	}
	for _, d := range demoDepartments {
		secret := s.secrets.Departments[d.code]
		o.Departments = append(o.Departments, department.Department{
			Code: d.code, ClientID: d.code + "-app", ClientSecret: secret.ClientSecret,
			APIKey: secret.APIKey, WebhookSecret: secret.WebhookSecret,
		})
	}
	app, err := department.New(o)
	if err != nil {
		return fmt.Errorf("demo departments: %w", err)
	}
	s.onStop(func(context.Context) error { return app.Close() })
	s.serve(portApp, app.Handler())
	return nil
}
