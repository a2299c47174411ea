// Package config is the one place where the service's settings are read: from the
// environment into one struct, checked whole, every fault reported at once with the variable's name.
//
//	environment ──Read──▶ Config ──▶ wiring        guichet config ──Print──▶ a table, secrets hidden
//
// It knows which combinations are dangerous: a live key outside production, a
// simulator or an open connection inside.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"text/tabwriter"

	"github.com/caarlos0/env/v11"
	"github.com/jackc/pgx/v5/pgconn"
)

// The kinds of deployment.
const (
	Development = "development" // one machine, simulators, a clock that can be moved
	Sandbox     = "sandbox"     // for departments to test against: test keys, simulators
	Production  = "production"
)

// A Secret prints as [secret] wherever it is printed.
type Secret string

// Reveal returns the secret itself, for the one place that needs it.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString keeps the secret out of %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText keeps the secret out of JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue keeps the secret out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Config holds every setting of the service. The help tag is what `guichet config`
// and the operator's handbook say about it.
type Config struct {
	Env            string `env:"GUICHET_ENV" envDefault:"development" help:"development, sandbox or production"`
	BaseURL        string `env:"GUICHET_BASE_URL" envDefault:"http://localhost:8080" help:"where residents reach the service; also the issuer of tokens"`
	Listen         string `env:"GUICHET_LISTEN" envDefault:"127.0.0.1:8080" help:"address of the service itself, behind the proxy"`
	AdminListen    string `env:"GUICHET_ADMIN_LISTEN" envDefault:"127.0.0.1:9090" help:"address of metrics and health; never public"`
	TrustedProxies string `env:"GUICHET_TRUSTED_PROXIES" help:"networks (CIDR, comma between) whose X-Forwarded-For is believed"`
	KeyFile        string `env:"GUICHET_KEY_FILE" help:"master key: 64 hexadecimal digits, mode 600; losing it loses what it sealed"`
	HeadDir        string `env:"GUICHET_HEADS" help:"directory for signed heads of the books, best on another machine's disk; empty: none are written"`
	LogFormat      string `env:"GUICHET_LOG" envDefault:"json" help:"json or text"`

	DatabaseURL Secret `env:"DATABASE_URL" help:"postgres://… of the database's owner; the service itself runs as guichet_app"`

	StripeSecretKey     Secret `env:"STRIPE_SECRET_KEY" help:"sk_live_… or rk_live_… in production, sk_test_… elsewhere"`
	StripeWebhookSecret Secret `env:"STRIPE_WEBHOOK_SECRET" help:"whsec_… of the webhook endpoint; several, comma between, while one is replaced"`
	StripeAPIURL        string `env:"STRIPE_API_URL" help:"a simulator instead of Stripe; never in production"`

	SMTPAddr       string `env:"SMTP_ADDR" help:"host:port of the mail server"`
	SMTPSecurity   string `env:"SMTP_SECURITY" envDefault:"starttls" help:"starttls, tls or none; none only outside production"`
	SMTPUser       string `env:"SMTP_USER" help:"empty: no sign-in"`
	SMTPPassword   Secret `env:"SMTP_PASSWORD" help:"goes with SMTP_USER"`
	MailFrom       string `env:"MAIL_FROM" help:"sender of mail to residents"`
	MailReturnPath string `env:"MAIL_RETURN_PATH" help:"where reports go, as bounces+<token>@…; default bounces@ the domain of MAIL_FROM"`
	MailReports    string `env:"MAIL_REPORTS_LISTEN" help:"address of the small SMTP server that takes these reports; empty: none"`

	StaffIssuer       string `env:"STAFF_ISSUER" help:"OpenID issuer of the city's directory; empty: no staff sign-in"`
	StaffClientID     string `env:"STAFF_CLIENT_ID" help:"goes with STAFF_ISSUER"`
	StaffClientSecret Secret `env:"STAFF_CLIENT_SECRET" help:"goes with STAFF_ISSUER"`
	StaffFreshACR     string `env:"STAFF_FRESH_ACR" help:"acr that the directory must show before approvals and refunds; empty: a fresh sign-in of any kind"`
	StaffAlarmMail    string `env:"STAFF_ALARM_MAIL" help:"who is told when the break-glass account is used: addresses, comma between; empty: no such account can be made"`

	PartnersFile string `env:"PARTNERS_FILE" help:"JSON list of partners whose sign-in counts for residents, readable by the service alone; empty: none"`

	BankInbox   string `env:"BANK_INBOX" help:"directory where camt.053 statements arrive; empty: none are read"`
	BankAccount string `env:"BANK_ACCOUNT" help:"the city's account as its statements write it; goes with BANK_INBOX"`

	SAPDelivery    string `env:"SAP_DELIVERY" help:"dir:/path or sftp://user@host:22/path, with the folders inbound, archive and outbound; empty: documents are built and kept"`
	SAPSFTPHostKey string `env:"SAP_SFTP_HOST_KEY" help:"the host's public key as in known_hosts: ssh-ed25519 AAAA…"`
	SAPSFTPKeyFile string `env:"SAP_SFTP_KEY_FILE" help:"private key to sign in with"`

	SAPCompanyCode  string `env:"SAP_COMPANY_CODE" envDefault:"1000" help:"company code of every document"`
	SAPDocumentType string `env:"SAP_DOCUMENT_TYPE" envDefault:"SA" help:"document type of every document"`
	SAPUser         string `env:"SAP_USER" envDefault:"GUICHET" help:"user in the document header"`
	SAPIDocType     string `env:"SAP_IDOC_TYPE" envDefault:"ACC_DOCUMENT03" help:"ACC_DOCUMENT03, 04 or 05"`
	SAPClient       string `env:"SAP_CLIENT" envDefault:"100" help:"three digits"`
	SAPRelease      string `env:"SAP_RELEASE" envDefault:"731" help:"document release in the control record"`
	SAPSender       string `env:"SAP_SENDER" envDefault:"GUICHET" help:"our logical system"`
	SAPSenderPort   string `env:"SAP_SENDER_PORT" envDefault:"GUICHET" help:"our port"`
	SAPReceiver     string `env:"SAP_RECEIVER" envDefault:"PRDCLNT100" help:"SAP's logical system"`
	SAPReceiverPort string `env:"SAP_RECEIVER_PORT" envDefault:"SAPPRD" help:"SAP's port"`
	SAPSegments     string `env:"SAP_SEGMENT_VERSION" envDefault:"000" help:"suffix of the external segment names"`
	SAPTaxCondition string `env:"SAP_TAX_CONDITION" envDefault:"MWAS" help:"condition key of tax items"`
	SAPTaxKey       string `env:"SAP_TAX_KEY" envDefault:"MWS" help:"account key of tax items"`
}

// Read reads the settings through get (os.Getenv) and checks them. The error
// names every variable at fault, one a line, and quotes no secret.
func Read(get func(string) string) (Config, error) {
	var c Config
	params, err := env.GetFieldParams(&c)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	values := make(map[string]string)
	for _, p := range params {
		if v := strings.TrimSpace(get(p.Key)); v != "" { // empty is absent
			values[p.Key] = v
		}
	}
	if err := env.ParseWithOptions(&c, env.Options{Environment: values}); err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	if _, domain, ok := strings.Cut(c.MailFrom, "@"); ok && c.MailReturnPath == "" {
		c.MailReturnPath = "bounces@" + domain
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if faults := c.check(); len(faults) > 0 {
		return Config{}, fmt.Errorf("configuration:\n  %s", strings.Join(faults, "\n  "))
	}
	return c, nil
}

// A checker collects faults.
type checker []string

func (f *checker) add(name, format string, args ...any) {
	*f = append(*f, name+": "+fmt.Sprintf(format, args...))
}

func (f *checker) need(values map[string]string, names ...string) {
	for _, name := range names {
		if values[name] == "" {
			f.add(name, "is missing")
		}
	}
}

func (c Config) check() []string {
	var f checker
	f.need(c.values(), "DATABASE_URL", "GUICHET_KEY_FILE", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "SMTP_ADDR", "MAIL_FROM")
	f.oneOf("GUICHET_ENV", c.Env, Development, Sandbox, Production)
	f.oneOf("GUICHET_LOG", c.LogFormat, "json", "text")
	f.oneOf("SMTP_SECURITY", c.SMTPSecurity, "starttls", "tls", "none")
	f.hostPort("GUICHET_LISTEN", c.Listen)
	f.hostPort("GUICHET_ADMIN_LISTEN", c.AdminListen)
	f.hostPort("SMTP_ADDR", c.SMTPAddr)
	f.hostPort("MAIL_REPORTS_LISTEN", c.MailReports)
	f.web("GUICHET_BASE_URL", c.BaseURL)
	f.web("STRIPE_API_URL", c.StripeAPIURL)
	f.web("STAFF_ISSUER", c.StaffIssuer)
	if _, err := c.Proxies(); err != nil {
		f.add("GUICHET_TRUSTED_PROXIES", "%v", err)
	}
	if u, err := url.Parse(c.BaseURL); err == nil && (u.Path != "" || u.RawQuery != "" || u.User != nil) {
		f.add("GUICHET_BASE_URL", "want scheme and host only")
	}
	if c.StaffIssuer != "" {
		f.need(c.values(), "STAFF_CLIENT_ID", "STAFF_CLIENT_SECRET")
	}
	for _, address := range c.AlarmAddresses() {
		if _, domain, ok := strings.Cut(address, "@"); !ok || domain == "" {
			f.add("STAFF_ALARM_MAIL", "want addresses with a comma between")
		}
	}
	if (c.SMTPUser == "") != (c.SMTPPassword == "") {
		f.add("SMTP_USER, SMTP_PASSWORD", "one goes with the other")
	}
	if c.BankInbox != "" {
		f.need(c.values(), "BANK_ACCOUNT")
	}
	f.sap(c)
	f.stripe(c)
	if c.Env == Production {
		f.production(c)
	}
	return f
}

// AlarmAddresses are who is told when the break-glass account is used.
func (c Config) AlarmAddresses() []string {
	var list []string
	for _, address := range strings.Split(c.StaffAlarmMail, ",") {
		if address = strings.TrimSpace(address); address != "" {
			list = append(list, address)
		}
	}
	return list
}

func (f *checker) sap(c Config) {
	switch scheme, rest, _ := strings.Cut(c.SAPDelivery, ":"); {
	case c.SAPDelivery == "":
	case scheme == "dir" && strings.HasPrefix(rest, "/"):
	case scheme == "sftp":
		if u, err := url.Parse(c.SAPDelivery); err != nil || u.Host == "" || u.User.Username() == "" || u.Path == "" {
			f.add("SAP_DELIVERY", "want sftp://user@host:port/path")
		} else if _, has := u.User.Password(); has {
			f.add("SAP_DELIVERY", "holds a password: sign in with SAP_SFTP_KEY_FILE")
		}
		f.need(c.values(), "SAP_SFTP_HOST_KEY", "SAP_SFTP_KEY_FILE")
	default:
		f.add("SAP_DELIVERY", "want dir:/path or sftp://user@host:port/path")
	}
}

// stripe refuses a live key where tests run and a test key where money moves.
func (f *checker) stripe(c Config) {
	_, kind, _ := strings.Cut(c.StripeSecretKey.Reveal(), "_")
	kind, _, _ = strings.Cut(kind, "_")
	switch {
	case c.StripeSecretKey == "":
	case kind != "test" && kind != "live":
		f.add("STRIPE_SECRET_KEY", "want sk_test_… or sk_live_…")
	case kind == "live" && c.Env != Production:
		f.add("STRIPE_SECRET_KEY", "is a live key, and this is %s: real cards would be charged", c.Env)
	case kind == "test" && c.Env == Production:
		f.add("STRIPE_SECRET_KEY", "is a test key, and this is production: nobody would be charged")
	}
	for secret := range strings.SplitSeq(c.StripeWebhookSecret.Reveal(), ",") {
		if c.StripeWebhookSecret != "" && (!strings.HasPrefix(secret, "whsec_") || len(secret) < 16) {
			f.add("STRIPE_WEBHOOK_SECRET", "want whsec_…, at least 16 characters each")
			break
		}
	}
}

// production refuses whatever stands in for the real thing or leaves a line open.
func (f *checker) production(c Config) {
	if c.StripeAPIURL != "" {
		f.add("STRIPE_API_URL", "points to a simulator, and this is production: leave it empty")
	}
	for name, v := range map[string]string{"GUICHET_BASE_URL": c.BaseURL, "STAFF_ISSUER": c.StaffIssuer} {
		if v != "" && !strings.HasPrefix(v, "https://") {
			f.add(name, "production needs https")
		}
	}
	if c.SMTPSecurity == "none" {
		f.add("SMTP_SECURITY", "production sends no mail in the clear")
	}
	if !databaseProtected(c.DatabaseURL.Reveal()) {
		f.add("DATABASE_URL", "goes over a network without TLS: add sslmode=verify-full")
	}
}

// databaseProtected reports whether the connection stays on this machine or uses
// TLS without falling back to none. What does not parse is left to who opens it.
func databaseProtected(dsn string) bool {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return true
	}
	local := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return strings.HasPrefix(host, "/") || host == "localhost" || err == nil && ip.IsLoopback()
	}
	if !local(cfg.Host) && cfg.TLSConfig == nil {
		return false
	}
	for _, fb := range cfg.Fallbacks {
		if !local(fb.Host) && fb.TLSConfig == nil {
			return false
		}
	}
	return true
}

func (f *checker) oneOf(name, v string, allowed ...string) {
	for _, a := range allowed {
		if v == a {
			return
		}
	}
	f.add(name, "is %q, want %s", v, strings.Join(allowed, ", "))
}

func (f *checker) hostPort(name, v string) {
	if v == "" {
		return
	}
	if _, port, err := net.SplitHostPort(v); err != nil || port == "" {
		f.add(name, "is %q, want host:port", v)
	}
}

func (f *checker) web(name, v string) {
	if v == "" {
		return
	}
	if u, err := url.Parse(v); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		f.add(name, "want http:// or https:// and a host")
	}
}

// Proxies returns the networks whose forwarded headers are believed.
func (c Config) Proxies() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for part := range strings.SplitSeq(c.TrustedProxies, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("%q: want a network like 10.0.0.0/8", part)
		}
		list = append(list, p)
	}
	return list, nil
}

// LogName is the name of the log in which the ledger is sealed: the first line of
// every signed head.
func (c Config) LogName() string {
	_, host, _ := strings.Cut(c.BaseURL, "://")
	return host + "/ledger"
}

// values returns the settings by variable.
func (c Config) values() map[string]string {
	m := make(map[string]string)
	for _, s := range settings(c) {
		m[s.name] = s.value
	}
	return m
}

type setting struct{ name, value, help string }

// settings lists every field in the order of the struct; secrets are hidden.
func settings(c Config) []setting {
	v := reflect.ValueOf(c)
	list := make([]setting, v.NumField())
	for i := range list {
		field := v.Type().Field(i)
		list[i] = setting{field.Tag.Get("env"), fmt.Sprint(v.Field(i).Interface()), field.Tag.Get("help")}
	}
	return list
}

// Print writes every setting with its value and meaning, secrets hidden.
func (c Config) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range settings(c) {
		if s.value == "" {
			s.value = "-"
		}
		if _, err := fmt.Fprintf(t, "%s\t%s\t%s\n", s.name, s.value, s.help); err != nil {
			return errors.Join(err, t.Flush())
		}
	}
	return t.Flush()
}
