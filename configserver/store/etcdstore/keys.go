package etcdstore

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
)

// keys builds every key below a prefix.
type keys struct{ prefix string }

func (k keys) replicas() string                    { return k.prefix + "replicas/" }
func (k keys) replica(id string) string            { return k.replicas() + id }
func (k keys) owners() string                      { return k.prefix + "owners/" }
func (k keys) owner(cluster string) string         { return k.owners() + cluster }
func (k keys) names() string                       { return k.prefix + "names/" }
func (k keys) name(cluster string) string          { return k.names() + cluster }
func (k keys) cluster(cluster string) string       { return k.prefix + "clusters/" + cluster + "/" }
func (k keys) record(cluster string) string        { return k.cluster(cluster) + "record" }
func (k keys) sequence(cluster string) string      { return k.cluster(cluster) + "sequence" }
func (k keys) epochs(cluster string) string        { return k.cluster(cluster) + "epochs/" }
func (k keys) events(cluster string) string        { return k.cluster(cluster) + "events/" }
func (k keys) members(cluster string) string       { return k.cluster(cluster) + "members/" }
func (k keys) member(cluster, proxy string) string { return k.members(cluster) + proxy }
func (k keys) scriptIndex(cluster string) string   { return k.cluster(cluster) + "scripts/index" }
func (k keys) flushes(cluster string) string       { return k.cluster(cluster) + "scripts/flushes" }
func (k keys) sources(cluster string) string       { return k.cluster(cluster) + "scripts/sources/" }
func (k keys) source(cluster, sha string) string   { return k.sources(cluster) + sha }

func (k keys) epoch(cluster string, n uint64) string {
	return fmt.Sprintf("%s%020d", k.epochs(cluster), n)
}

func (k keys) event(cluster string, n uint64) string {
	return fmt.Sprintf("%s%020d", k.events(cluster), n)
}

// compressAbove is the size in bytes from which a value is gzipped. Small ones
// stay readable for people with etcdctl; the record of a cluster with a
// thousand shards, which a commit writes twice, would exceed etcd's default
// request limit of 1.5 MiB without it.
const compressAbove = 32 << 10

// encode writes a value as JSON, gzipped when it is large.
func encode(v any) (string, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	if len(data) <= compressAbove {
		return string(data), nil
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(data); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return b.String(), nil
}

// decode reads what encode wrote.
func decode(key string, data []byte, v any) error {
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return fmt.Errorf("etcd key %s: %w", key, err)
		}
		if data, err = io.ReadAll(r); err != nil {
			return fmt.Errorf("etcd key %s: %w", key, err)
		}
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("etcd key %s: %w", key, err)
	}
	return nil
}
