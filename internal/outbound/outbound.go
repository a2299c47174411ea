// Package outbound calls addresses that others chose: departments' webhooks, and
// where their applications are told of a sign-out.
//
//	job ──Client──▶ name ──DNS──▶ address ──Public?──▶ connection
//
// A caller must not be led into the city's own networks, so the address is judged at each
// connection, after it was resolved. No redirect is followed.
package outbound

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// Timeout is for one whole call: a receiver that works longer should answer first.
const Timeout = 5 * time.Second

const maxHeader = 16 << 10 // bytes of an answer's headers

var (
	publicClient  = newClient(false)
	privateClient = newClient(true)
)

// Client returns the client for public addresses or, for a receiver that an operator
// has allowed it, for private ones too.
func Client(private bool) *http.Client {
	if private {
		return privateClient
	}
	return publicClient
}

// newClient follows no redirects and, unless private, connects to public
// addresses only: the check runs on the resolved address of each connection, so a
// DNS answer that changes later is caught.
func newClient(private bool) *http.Client {
	dialer := &net.Dialer{Timeout: Timeout}
	if !private {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address %q: %w", address, err)
			}
			if !Public(ap.Addr()) {
				return ErrPrivate
			}
			return nil
		}
	}
	return &http.Client{
		Timeout:       Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: Timeout, MaxResponseHeaderBytes: maxHeader},
	}
}

// ErrPrivate says that an address leads where only machines of the house should.
var ErrPrivate = errors.New("the address is inside a private network")

// special are the ranges that IANA's registries of special-purpose addresses (RFC
// 6890) call not globally reachable, or that carry an address of another family
// inside. Of IPv6 only 2000::/3 has been given out at all.
var special = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")

var (
	givenOut = netip.MustParsePrefix("2000::/3")
	nat64    = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: the last four bytes are the IPv4 address that is reached
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, p := range list {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

// Public reports whether an address is somewhere on the internet.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	return (a.Is4() || givenOut.Contains(a)) && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}
