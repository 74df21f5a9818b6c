// Package version says which build of Basalt a program is.
package version

import "runtime/debug"

// release is set by the linker: -ldflags "-X …/internal/version.release=v1.2.3".
var release string

// String returns the release, or for a build outside of one the commit it was
// made from ("dev-1a2b3c4d5e6f", with "-dirty" when files were changed).
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = "-" + s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return "dev" + revision + dirty
}
