package store

import (
	"fmt"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// MaxEvents is how many events one transaction takes; etcd allows 128
// operations in one, and a commit needs some for itself.
const MaxEvents = 64

// CheckCreate says what is wrong with a record that is to begin a cluster.
// Every implementation calls it in Create.
func CheckCreate(c topology.Cluster) error {
	if c.Epoch != 1 {
		return fmt.Errorf("create cluster %s: epoch %d, want 1", c.Name, c.Epoch)
	}
	return c.Validate()
}

// CheckCommit says what is wrong with a record that is to be committed to a
// cluster. Every implementation calls it in Commit.
func CheckCommit(cluster string, next topology.Cluster, events []topology.Event) error {
	if next.Name != cluster {
		return fmt.Errorf("commit %s: the record is of cluster %s", cluster, next.Name)
	}
	if next.Epoch < 2 {
		return fmt.Errorf("commit %s: epoch %d, the first commit makes 2", cluster, next.Epoch)
	}
	if err := next.Validate(); err != nil {
		return fmt.Errorf("commit %s: %w", cluster, err)
	}
	return CheckEvents(cluster, events)
}

// CheckAdopt says what is wrong with a record that is to replace an older one than
// servers and proxies obey. Every implementation calls it in Adopt.
func CheckAdopt(cluster string, before, next topology.Cluster, events []topology.Event) error {
	if before.Name != cluster {
		return fmt.Errorf("adopt %s: the record before is of cluster %s", cluster, before.Name)
	}
	if err := before.ValidateAdopted(next); err != nil {
		return fmt.Errorf("adopt %s: %w", cluster, err)
	}
	return CheckCommit(cluster, next, events)
}

// CheckEvents says what is wrong with events that are to be appended. The store
// fills in the cluster and the sequence number, nothing else.
func CheckEvents(cluster string, events []topology.Event) error {
	if len(events) > MaxEvents {
		return fmt.Errorf("cluster %s: %d events at once, at most %d", cluster, len(events), MaxEvents)
	}
	for _, e := range events {
		if e.Kind == "" || e.Cluster != "" && e.Cluster != cluster {
			return fmt.Errorf("cluster %s: event %q of cluster %q must have a kind and be of this cluster", cluster, e.Kind, e.Cluster)
		}
	}
	return nil
}

// MaxMemberID is the longest id of a member in bytes.
const MaxMemberID = 128

// CheckMember says what is wrong with a member; ids become parts of keys.
func CheckMember(m Member) error {
	if len(m.ID) == 0 || len(m.ID) > MaxMemberID {
		return topology.Invalidf("proxy_id", "must have 1 to %d bytes, has %d", MaxMemberID, len(m.ID))
	}
	for _, b := range []byte(m.ID) {
		if b <= ' ' || b == '/' || b >= 0x7f {
			return topology.Invalidf("proxy_id", "%q must be printable ASCII without spaces and \"/\"", m.ID)
		}
	}
	return nil
}
