package oidc

import "io/fs"

// Files are the pages and words of this package, for tests outside it.
func Files() fs.FS { return files }
