package local

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// dataDir is where everything of one playground is:
//
//	playground.json            what it consists of, for the next run
//	credentials/local/         the secrets, in the style of a mounted Secret
//	nodes/shard-0-0/           redis.conf, data/
//	configserver-0/ etcd/      etcd's data, when embedded or separate
//	proxy-0/                   the proxy's working directory
//	logs/                      one log per process
type dataDir struct {
	path      string
	temporary bool
	lock      *os.File
}

// layout is playground.json: what must be the same in the next run, since the
// topology in etcd knows the nodes by their addresses.
type layout struct {
	Shards   int `json:"shards"`
	Replicas int `json:"replicas"`
	// Proxies are how many there were last; another number may be asked for.
	Proxies int `json:"proxies,omitempty"`
	// NodePorts by node id.
	NodePorts map[string]int `json:"nodePorts"`
	// EtcdPorts are the client and peer port of etcd; SeparateEtcd says whose
	// directory holds the data.
	EtcdPorts    [2]int `json:"etcdPorts"`
	SeparateEtcd bool   `json:"separateEtcd"`
	// ClusterUID is of the cluster once it was created: servers that are started after
	// that say by it which node they are.
	ClusterUID string `json:"clusterUID,omitempty"`
}

// openDataDir makes or opens the directory and takes its lock.
func openDataDir(path string) (*dataDir, error) {
	d := &dataDir{path: path, temporary: path == ""}
	var err error
	if d.temporary {
		d.path, err = os.MkdirTemp("", "basalt-local-")
	} else {
		if d.path, err = filepath.Abs(path); err == nil {
			err = os.MkdirAll(d.path, 0o700)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d.lock, err = lockFile(filepath.Join(d.path, ".lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another `basaltctl local up`; stop that one or choose another DATA_DIR", d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(d.in("logs"), 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return d, nil
}

func (d *dataDir) in(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// close gives the directory back, and removes it if it was temporary.
func (d *dataDir) close() error {
	var err error
	if d.temporary {
		err = os.RemoveAll(d.path)
	}
	return errors.Join(err, d.lock.Close())
}

// layout brings the options and what an earlier run left in agreement. Options
// that were not given follow the directory; ones that contradict it are
// refused, as a playground does not reshard.
func (d *dataDir) layout(o *Options) (*layout, error) {
	l := &layout{}
	data, err := os.ReadFile(d.in("playground.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if o.Shards == 0 {
			o.Shards = 3
		}
		if o.Replicas < 0 {
			o.Replicas = 1
		}
		o.Proxies = cmp.Or(o.Proxies, 1)
		l.Shards, l.Replicas, l.Proxies = o.Shards, o.Replicas, o.Proxies
		l.SeparateEtcd = o.SeparateEtcd || o.Configservers > 1
		l.NodePorts = map[string]int{}
		return l, nil
	case err == nil:
		err = json.Unmarshal(data, l)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: playground.json: %w", d.path, err)
	}
	if o.Shards == 0 {
		o.Shards = l.Shards
	}
	if o.Replicas < 0 {
		o.Replicas = l.Replicas
	}
	o.Proxies = cmp.Or(o.Proxies, l.Proxies, 1)
	l.Proxies = o.Proxies
	if o.Shards != l.Shards || o.Replicas != l.Replicas {
		return nil, fmt.Errorf("data directory %s holds %d shards with %d replicas each; start it with SHARDS=%d REPLICAS=%d, or choose another DATA_DIR",
			d.path, l.Shards, l.Replicas, l.Shards, l.Replicas)
	}
	if wantSeparate := o.SeparateEtcd || o.Configservers > 1; wantSeparate && !l.SeparateEtcd {
		return nil, fmt.Errorf("data directory %s was made with an etcd embedded in its one configserver; start it with CONFIGSERVERS=1, or choose another DATA_DIR", d.path)
	}
	return l, nil
}

func (d *dataDir) save(l *layout) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(d.in("playground.json"), append(data, '\n'))
}

// makeCredentials makes the secrets that are not there yet.
func (d *dataDir) makeCredentials(clientPasswordFile string) error {
	dir := d.in("credentials", Cluster)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	for _, name := range []string{"admin-password", "cluster-secret"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		if err := writeFile(path, []byte(hex.EncodeToString(secret)+"\n")); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
	}
	if clientPasswordFile == "" {
		return nil
	}
	data, err := os.ReadFile(clientPasswordFile)
	if err != nil {
		return fmt.Errorf("client password: %w", err)
	}
	return writeFile(filepath.Join(dir, "client-password"), data)
}
