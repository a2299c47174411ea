package session

import (
	"net/http"
	"net/netip"
	"strings"

	"guichet/identity"
)

// Visitor returns where a request comes from, as coarsely as we keep it. It believes
// RemoteAddr: behind a proxy, a middleware before us has to set it.
func Visitor(r *http.Request) identity.Visitor {
	return identity.Visitor{Network: network(r.RemoteAddr), Device: device(r.UserAgent())}
}

// network is the /24 or, for IPv6, the /64 of an address: what one household or
// office shares.
func network(remote string) string {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	addr, bits := from.Addr().Unmap().WithZone(""), 64
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

// device names browser and system as their owner would: "Firefox, Linux". Anything
// more exact would be a fingerprint. The order matters: Chrome says that it is Safari too.
func device(agent string) string {
	return strings.Trim(match(agent,
		"Edg/", "Edge", "OPR/", "Opera", "SamsungBrowser/", "Samsung Internet", "Firefox/", "Firefox", "FxiOS/", "Firefox",
		"CriOS/", "Chrome", "Chrome/", "Chrome", "Safari/", "Safari")+", "+match(agent,
		"iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows", "CrOS", "ChromeOS",
		"Mac OS X", "Mac", "Linux", "Linux"), ", ")
}

func match(agent string, marks ...string) string {
	for i := 0; i < len(marks); i += 2 {
		if strings.Contains(agent, marks[i]) {
			return marks[i+1]
		}
	}
	return ""
}
