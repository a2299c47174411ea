package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"guichet/internal/config"
)

var dev = map[string]string{
	"DATABASE_URL":          "postgres://guichet:geheim@db.example/guichet",
	"GUICHET_KEY_FILE":      "/etc/guichet/key",
	"STRIPE_SECRET_KEY":     "sk_test_geheim",
	"STRIPE_WEBHOOK_SECRET": "whsec_geheimgeheim",
	"STRIPE_API_URL":        "http://127.0.0.1:12111",
	"SMTP_ADDR":             "127.0.0.1:2525",
	"SMTP_SECURITY":         "none",
	"MAIL_FROM":             "guichet@city.example",
}

var production = map[string]string{
	"GUICHET_ENV":           "production",
	"GUICHET_BASE_URL":      "https://guichet.city.example/",
	"DATABASE_URL":          "postgres://guichet:geheim@db.example/guichet?sslmode=verify-full",
	"GUICHET_KEY_FILE":      "/etc/guichet/key",
	"STRIPE_SECRET_KEY":     "sk_live_geheim",
	"STRIPE_WEBHOOK_SECRET": "whsec_geheimgeheim",
	"SMTP_ADDR":             "mail.city.example:587",
	"SMTP_USER":             "guichet",
	"SMTP_PASSWORD":         "geheim",
	"MAIL_FROM":             "guichet@city.example",
	"STAFF_ISSUER":          "https://login.city.example",
	"STAFF_CLIENT_ID":       "guichet",
	"STAFF_CLIENT_SECRET":   "geheim",
	"SAP_DELIVERY":          "sftp://guichet@sap.city.example:22/in",
	"SAP_SFTP_HOST_KEY":     "ssh-ed25519 AAAA",
	"SAP_SFTP_KEY_FILE":     "/etc/guichet/sftp",
}

func read(base map[string]string, change ...string) (config.Config, error) {
	m := maps.Clone(base)
	for i := 0; i < len(change); i += 2 {
		m[change[i]] = change[i+1]
	}
	return config.Read(func(name string) string { return m[name] })
}

func TestDefaults(t *testing.T) {
	c, err := read(dev)
	if err != nil {
		t.Fatal(err)
	}
	if c.Env != config.Development || c.Listen != "127.0.0.1:8080" || c.MailReturnPath != "bounces@city.example" {
		t.Errorf("defaults: %+v", c)
	}
	if c, err = read(production); err != nil || c.SMTPSecurity != "starttls" || c.BaseURL != "https://guichet.city.example" {
		t.Errorf("production: %+v, %v", c, err)
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	_, err := config.Read(func(string) string { return "" })
	if err == nil {
		t.Fatal("an empty environment passes")
	}
	for _, name := range []string{"DATABASE_URL", "GUICHET_KEY_FILE", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "SMTP_ADDR", "MAIL_FROM"} {
		if !strings.Contains(err.Error(), name+": is missing") {
			t.Errorf("the message lacks %s:\n%v", name, err)
		}
	}
}

func TestDangerousAndBrokenSettingsAreRefused(t *testing.T) {
	tests := []struct {
		base          map[string]string
		name, value   string
		wantInMessage string
	}{
		{dev, "GUICHET_ENV", "prod", "GUICHET_ENV"},
		{dev, "STRIPE_SECRET_KEY", "sk_live_geheim", "is a live key"},
		{dev, "STRIPE_SECRET_KEY", "rk_live_geheim", "is a live key"},
		{dev, "STRIPE_SECRET_KEY", "geheim", "want sk_test_"},
		{dev, "STRIPE_WEBHOOK_SECRET", "geheim", "want whsec_"},
		{dev, "STRIPE_WEBHOOK_SECRET", "whsec_short", "at least 16 characters"},
		{dev, "STRIPE_WEBHOOK_SECRET", "whsec_0123456789abcdef,", "want whsec_"},
		{dev, "GUICHET_LISTEN", "8080", "host:port"},
		{dev, "GUICHET_BASE_URL", "localhost:8080", "GUICHET_BASE_URL"},
		{dev, "GUICHET_BASE_URL", "http://localhost:8080/pay", "scheme and host only"},
		{dev, "GUICHET_TRUSTED_PROXIES", "10.0.0.1", "GUICHET_TRUSTED_PROXIES"},
		{dev, "SMTP_SECURITY", "ssl", "SMTP_SECURITY"},
		{dev, "SMTP_USER", "x", "SMTP_PASSWORD"},
		{dev, "STAFF_ISSUER", "http://127.0.0.1:9", "STAFF_CLIENT_SECRET: is missing"},
		{dev, "SAP_DELIVERY", "ftp://x/y", "SAP_DELIVERY"},
		{dev, "SAP_DELIVERY", "dir:relative", "SAP_DELIVERY"},
		{dev, "SAP_DELIVERY", "sftp://sap.example/in", "SAP_DELIVERY"},
		{dev, "SAP_DELIVERY", "sftp://u@sap.example/out", "SAP_SFTP_HOST_KEY: is missing"},
		{dev, "SAP_DELIVERY", "sftp://u:geheim@sap.example/in", "holds a password"},
		{production, "STRIPE_SECRET_KEY", "sk_test_geheim", "is a test key"},
		{production, "STRIPE_API_URL", "http://127.0.0.1:12111", "simulator"},
		{production, "GUICHET_BASE_URL", "http://guichet.city.example", "https"},
		{production, "STAFF_ISSUER", "http://login.city.example", "https"},
		{production, "SMTP_SECURITY", "none", "SMTP_SECURITY"},
		{production, "DATABASE_URL", "postgres://guichet:geheim@db.example/guichet", "verify-full"},
		{production, "DATABASE_URL", "postgres://guichet:geheim@db.example/guichet?sslmode=disable", "verify-full"},
	}
	for _, tt := range tests {
		_, err := read(tt.base, tt.name, tt.value)
		if err == nil || !strings.Contains(err.Error(), tt.wantInMessage) {
			t.Errorf("%s=%s: %v, want %q", tt.name, tt.value, err, tt.wantInMessage)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the message quotes a secret: %v", tt.name, err)
		}
	}
	for _, dsn := range []string{"postgres://u@127.0.0.1/x", "postgres://u@localhost/x", "host=/run/postgresql user=u", "postgres://u@db.example/x?sslmode=require"} {
		if _, err := read(production, "DATABASE_URL", dsn); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	c, err := read(production)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", c.SMTPPassword)
	fmt.Fprintf(&out, "%v %+v %#v %q %s", c, c, c, c.SMTPPassword, js)
	if strings.Contains(out.String(), "geheim") {
		t.Errorf("a secret is printed:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "SMTP_PASSWORD") || !strings.Contains(out.String(), "[secret]") || c.SMTPPassword.Reveal() != "geheim" {
		t.Errorf("the table lacks a setting:\n%s", out.String())
	}
}
