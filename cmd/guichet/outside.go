package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"guichet/api"
	"guichet/identity/staff"
	adapter "guichet/payments/stripe"
	"guichet/simulators/bank"
	"guichet/simulators/control"
	"guichet/simulators/directory"
	"guichet/simulators/mail"
	"guichet/simulators/sap"
	"guichet/simulators/stripe"
)

// links are what a person can open of a stack.
func (s *stack) links() []control.Link {
	portal := s.ports.url(portPortal)
	var all []control.Link
	for _, l := range [][2]string{
		{"Resident portal", portal},
		{"Demo department: permits", s.ports.url(portApp) + "/permits"},
		{"Staff desk", portal + "/desk"},
		{"API documentation", portal + "/developers"},
		{"Mail catcher", s.ports.url(portMail)},
		{"Card processor (simulator)", s.ports.url(portProcessor)},
		{"Bank (simulator)", s.ports.url(portBank)},
		{"SAP (simulator)", s.ports.url(portSAP)},
		{"Staff directory (simulator)", s.ports.url(portDirectory)},
		{"Metrics", s.ports.url(portAdmin) + "/metrics"},
	} {
		all = append(all, control.Link{Name: l[0], URL: l[1]})
	}
	return all
}

// startSimulators starts what stands in for the world outside, each with its
// state in a directory of its own.
func (s *stack) startSimulators() error {
	now, around := s.clock.Now, s.links()
	dir := func(name string) string { return filepath.Join(s.dir, "simulators", name) }

	catcher, err := mail.New(mail.Options{Now: now, Dir: dir("mail"), Log: s.log.With("simulator", "mail"), BounceSMTP: s.ports.addr(portReports), Links: around})
	if err != nil {
		return fmt.Errorf("mail catcher: %w", err)
	}
	s.onStop(func(context.Context) error { return catcher.Close() })
	s.serve(portMail, catcher.Handler())
	s.group.Go(func() error { return catcher.ServeSMTP(s.ports[portSMTP]) })
	s.run("mail catcher", catcher.Run)

	people, err := directory.New(directory.Options{
		Now: now, Dir: dir("directory"), Log: s.log.With("simulator", "directory"),
		Issuer: s.ports.url(portDirectory), Links: around,
		Clients: []directory.Client{{
			ID: "guichet", Secret: s.secrets.StaffClient,
			RedirectURIs: []string{s.ports.url(portPortal) + "/staff/callback"}, PostLogoutURIs: []string{s.ports.url(portPortal) + "/desk"},
		}},
	})
	if err != nil {
		return fmt.Errorf("staff directory: %w", err)
	}
	s.serve(portDirectory, people.Handler())

	account, err := bank.New(bank.Options{
		Now: now, Dir: dir("bank"), Log: s.log.With("simulator", "bank"),
		Inbox: s.settings["BANK_INBOX"], Account: s.settings["BANK_ACCOUNT"], Links: around,
	})
	if err != nil {
		return fmt.Errorf("bank: %w", err)
	}
	s.serve(portBank, account.Handler())

	if err := s.startSAP(dir("sap"), around); err != nil {
		return fmt.Errorf("SAP: %w", err)
	}

	if s.stripe, err = stripe.New(stripe.Options{
		Now: now, Dir: dir("processor"), Log: s.log.With("simulator", "processor"), APIKey: s.secrets.StripeKey,
		WebhookEndpoints: []stripe.Endpoint{{URL: s.ports.url(portPortal) + api.ProcessorHook, Secret: s.secrets.StripeWebhook, Events: adapter.EventTypes}},
		BankURL:          s.ports.url(portBank), PublicURL: s.ports.url(portProcessor), Links: around,
	}); err != nil {
		return fmt.Errorf("card processor: %w", err)
	}
	s.onStop(func(context.Context) error { return s.stripe.Close() })
	s.serve(portProcessor, s.stripe.Handler())
	s.run("card processor", s.stripe.Run)
	return nil
}

// startSAP starts SAP's side of the file interface, over SFTP, and tells the
// service whose host key to expect.
func (s *stack) startSAP(dir string, around []control.Link) error {
	text, err := os.ReadFile(s.settings["SAP_SFTP_KEY_FILE"])
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	erp, err := sap.New(sap.Options{Now: s.clock.Now, Dir: dir, Log: s.log.With("simulator", "sap"), ClientKey: signer.PublicKey(), Links: around})
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { return erp.Close() })
	s.serve(portSAP, erp.Handler())
	s.group.Go(func() error { return erp.ServeSFTP(s.ports[portSFTP]) })
	s.run("SAP", erp.Run)
	s.settings["SAP_SFTP_HOST_KEY"] = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(erp.HostKey())))
	return nil
}

// demoRoles are what the demo directory's groups bring to a member at the first
// sign-in.
func demoRoles() map[string][]staff.Suggestion {
	return map[string][]staff.Suggestion{
		"guichet-finance-clerk":      {{Role: staff.FinanceClerk}},
		"guichet-finance-approver":   {{Role: staff.FinanceApprover}},
		"guichet-agent-311":          {{Role: staff.Agent311}},
		"guichet-administrator":      {{Role: staff.Administrator}},
		"guichet-supervisor":         {{Role: staff.Supervisor, DepartmentCode: "parking"}},
		"guichet-department-parking": {{Role: staff.Department, DepartmentCode: "parking"}},
	}
}
