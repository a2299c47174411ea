// Package admin serves the administration pages of the desk: clients of departments,
// API keys and webhooks, signing keys, staff, and the search of the audit.
package admin

import (
	"embed"

	"guichet/api/web"
)

//go:embed locale
var files embed.FS

// Register adds the room's words and pages to a site.
func Register(site *web.Site) { site.Register("admin", files) }
