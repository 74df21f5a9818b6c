// Package settings fills a program's flags from four places, the later ones
// stronger: the flags' defaults, a YAML file, the environment, the command line.
//
// A setting has one name everywhere. The flag --max-clients is the key
// "max-clients" in the file and BASALT_PROXY_MAX_CLIENTS in the environment of
// a program whose prefix is BASALT_PROXY. Unknown keys are errors, because a
// misspelt limit that is silently ignored is found on the worst day.
package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v2"
)

// ConfigFlag is the flag that names the YAML file.
const ConfigFlag = "config"

// Load parses args into fs and then applies the environment and the file. It
// adds the flag --config when fs has none. It returns pflag.ErrHelp when help
// was asked for and printed; other errors say which setting is wrong and where
// it was set.
func Load(fs *pflag.FlagSet, envPrefix string, args []string) error {
	AddConfigFlag(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: settings are flags, see --help", fs.Arg(0))
	}
	return Apply(fs, envPrefix)
}

// AddConfigFlag adds --config when fs has none.
func AddConfigFlag(fs *pflag.FlagSet) {
	if fs.Lookup(ConfigFlag) == nil {
		fs.String(ConfigFlag, "", "YAML `file` of settings, keys are the names of these flags")
	}
}

// Apply gives the flags that were not on the command line their value from the
// environment, or else from the file. Programs whose flags something else
// already parsed (cobra) call it in place of Load.
func Apply(fs *pflag.FlagSet, envPrefix string) error {
	var errs []error
	apply := func(f *pflag.Flag, value, source string) {
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", source, err))
		}
	}
	fs.VisitAll(func(f *pflag.Flag) {
		name := EnvName(envPrefix, f.Name)
		if value, ok := os.LookupEnv(name); ok && !f.Changed && f.Name != "help" && f.Name != "version" {
			apply(f, value, "environment "+name)
		}
	})
	f := fs.Lookup(ConfigFlag)
	if f == nil || f.Value.String() == "" || len(errs) > 0 {
		return errors.Join(errs...)
	}
	path := f.Value.String()
	values, err := readFile(path)
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(values) {
		switch f := fs.Lookup(key); {
		case f == nil || key == ConfigFlag || key == "help" || key == "version":
			errs = append(errs, fmt.Errorf("%s: unknown setting %q%s", path, key, suggestion(fs, key)))
		case !f.Changed:
			apply(f, values[key].text, path)
		}
	}
	return errors.Join(errs...)
}

// EnvName is the environment variable of a flag: ("BASALT_PROXY",
// "http-listen") is BASALT_PROXY_HTTP_LISTEN.
func EnvName(prefix, flag string) string {
	return prefix + "_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// value is a scalar, or a list that becomes its elements joined by commas, the
// form in which list flags are written on the command line.
type value struct{ text string }

// UnmarshalYAML takes scalars in the very letters of the file, so that 0x10 or
// 1e3 reach the flag as written.
func (v *value) UnmarshalYAML(unmarshal func(any) error) error {
	if unmarshal(&v.text) == nil {
		return nil
	}
	var list []string
	if err := unmarshal(&list); err != nil {
		return errors.New("want a value or a list of values")
	}
	v.text = strings.Join(list, ",")
	return nil
}

func readFile(path string) (map[string]value, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	values := map[string]value{}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return nil, fmt.Errorf("settings: %s: %w", path, err)
	}
	return values, nil
}

func sortedKeys(m map[string]value) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// suggestion names the flag that a misspelt key most likely meant.
func suggestion(fs *pflag.FlagSet, key string) (s string) {
	key = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(key))
	fs.VisitAll(func(f *pflag.Flag) {
		if s == "" && (f.Name == key || strings.HasPrefix(f.Name, key) || strings.HasPrefix(key, f.Name)) {
			s = fmt.Sprintf("; did you mean %q?", f.Name)
		}
	})
	return s
}
