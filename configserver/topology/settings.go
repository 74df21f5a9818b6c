package topology

import (
	"cmp"
	"slices"
)

// Setting is a parameter of the servers' configuration that every node of a
// cluster has.
type Setting struct {
	// Name is the parameter's canonical name (see package parameters).
	Name string `json:"name"`
	// Value as it was given to CONFIG SET.
	Value string `json:"value"`
}

// Limits of a cluster's settings, far above what servers know.
const (
	MaxSettings     = 500
	MaxSettingName  = 128
	MaxSettingValue = 4096
)

// WithSettings returns settings with others added to them or put in their
// place, by name. It shares nothing with either.
func WithSettings(settings, others []Setting) []Setting {
	all := slices.Clone(settings)
	for _, s := range others {
		all = slices.DeleteFunc(all, func(old Setting) bool { return old.Name == s.Name })
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// validateSettings checks what an admin may have got wrong.
func validateSettings(settings []Setting) error {
	if len(settings) > MaxSettings {
		return Invalidf("config", "%d parameters, at most %d are kept", len(settings), MaxSettings)
	}
	for i, s := range settings {
		if s.Name == "" || len(s.Name) > MaxSettingName {
			return Invalidf("config", "the name %.40q has %d bytes, want 1 to %d", s.Name, len(s.Name), MaxSettingName)
		}
		if len(s.Value) > MaxSettingValue {
			return Invalidf("config", "the value of %s has %d bytes, at most %d are kept", s.Name, len(s.Value), MaxSettingValue)
		}
		if i > 0 && settings[i-1].Name >= s.Name {
			return Invalidf("config", "%s does not come after %s (WithSettings keeps the order)", s.Name, settings[i-1].Name)
		}
	}
	return nil
}
