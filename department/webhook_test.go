package department

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"guichet/internal/outbound"
)

func TestSendIsVerifiedByTheStandardLibraryOfReceivers(t *testing.T) {
	secret := newWebhookSecret()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	var verified error
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := r.Body.Read(body); err != nil && err.Error() != "EOF" {
			verified = err
			return
		}
		verified = verifier.Verify(body, r.Header)
	}))
	defer server.Close()
	status, err := send(t.Context(), server.URL, true, secret, "0199-event", time.Now(), []byte(`{"id":"0199-event"}`))
	if err != nil || status != 200 || verified != nil {
		t.Errorf("status %d, error %v; the receiver's library says %v", status, err, verified)
	}
	if _, err := send(t.Context(), server.URL, true, newWebhookSecret(), "0199-event", time.Now(), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if verified == nil {
		t.Error("the receiver's library accepts a signature with another secret")
	}
}

func TestSendRefusesAddressesInsideTheNetwork(t *testing.T) {
	reached := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer server.Close()
	_, err := send(t.Context(), server.URL, false, newWebhookSecret(), "id", time.Now(), []byte(`{}`))
	if !errors.Is(err, outbound.ErrPrivate) || reached {
		t.Errorf("send to loopback: %v, reached %v; want %v", err, reached, outbound.ErrPrivate)
	}
	for _, in := range []string{
		"10.0.0.1", "192.168.1.1", "172.16.0.1", "127.0.0.1", "169.254.169.254", "100.64.1.1", "0.0.0.0", "0.1.2.3", "192.0.0.8", "198.18.0.1",
		"224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fd00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
		"::ffff:10.0.0.1",        // mapped
		"::10.0.0.1", "::7f00:1", // compatible
		"::ffff:0:10.0.0.1",       // translated
		"64:ff9b::10.0.0.1",       // NAT64
		"64:ff9b:1::10.0.0.1",     // NAT64 of a network's own
		"2002:a00:1::1",           // 6to4
		"2001:0:a00:1::f5ff:fffe", // Teredo
		"2001:db8::1", "100::1", "5f00::1",
	} {
		if outbound.Public(netip.MustParseAddr(in)) {
			t.Errorf("%s passes as public", in)
		}
	}
	for _, in := range []string{"1.1.1.1", "205.193.0.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"} {
		if !outbound.Public(netip.MustParseAddr(in)) {
			t.Errorf("%s does not pass as public", in)
		}
	}
}

func TestSendFollowsNoRedirect(t *testing.T) {
	reached := false
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer inside.Close()
	server := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	status, err := send(t.Context(), server.URL, true, newWebhookSecret(), "id", time.Now(), []byte(`{}`))
	if err == nil || status != http.StatusTemporaryRedirect || reached {
		t.Errorf("status %d, error %v, reached %v; want a refusal with status 307", status, err, reached)
	}
}
