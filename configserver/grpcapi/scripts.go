package grpcapi

import (
	"context"
	"errors"

	"github.com/basalt-redis/basalt/configserver/store"
	"github.com/basalt-redis/basalt/configserver/topology"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

// Scripts are read and written by whichever Configserver was asked: the store
// alone decides, and no loop depends on them (store/scripts.go).

func (s scriptService) PutScripts(ctx context.Context, req *basaltv1.PutScriptsRequest) (*basaltv1.PutScriptsResponse, error) {
	name := req.GetCluster()
	if err := checkCluster("cluster", name); err != nil {
		return nil, toStatus(err)
	}
	var scripts []store.Script
	for _, script := range req.GetScripts() {
		scripts = append(scripts, store.Script{SHA: script.GetSha(), Source: string(script.GetSource()), Loaded: script.GetLoaded()})
	}
	err := s.cfg.Store.PutScripts(ctx, name, req.GetFlushes(), scripts)
	if errors.Is(err, store.ErrFlushed) {
		_, flushes, err := s.cfg.Store.Scripts(ctx, name, nil, false)
		if err != nil {
			return nil, toStatus(aboutCluster(name, err))
		}
		return &basaltv1.PutScriptsResponse{Flushes: flushes}, nil
	}
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	return &basaltv1.PutScriptsResponse{Flushes: req.GetFlushes()}, nil
}

func (s scriptService) GetScripts(ctx context.Context, req *basaltv1.GetScriptsRequest) (*basaltv1.GetScriptsResponse, error) {
	name := req.GetCluster()
	err := checkCluster("cluster", name)
	if n := len(req.GetShas()); err == nil && n > store.MaxScripts {
		err = topology.Invalidf("shas", "%d at once, at most %d", n, store.MaxScripts)
	}
	for _, sha := range req.GetShas() {
		if err == nil {
			err = checkSHA(sha)
		}
	}
	if err != nil {
		return nil, toStatus(err)
	}
	kept, flushes, err := s.cfg.Store.Scripts(ctx, name, req.GetShas(), !req.GetNamesOnly())
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	out := &basaltv1.GetScriptsResponse{Flushes: flushes}
	for _, script := range kept {
		out.Scripts = append(out.Scripts, &basaltv1.Script{Sha: script.SHA, Source: []byte(script.Source)})
	}
	return out, nil
}

func (s scriptService) FlushScripts(ctx context.Context, req *basaltv1.FlushScriptsRequest) (*basaltv1.FlushScriptsResponse, error) {
	name := req.GetCluster()
	if err := checkCluster("cluster", name); err != nil {
		return nil, toStatus(err)
	}
	flushes, err := s.cfg.Store.FlushScripts(ctx, name)
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	s.log.Info("scripts flushed", "cluster", name, "flushes", flushes)
	return &basaltv1.FlushScriptsResponse{Flushes: flushes}, nil
}

// checkSHA also keeps anything else out of the store's keys.
func checkSHA(sha string) error {
	ok := len(sha) == 40
	for _, c := range []byte(sha) {
		ok = ok && ('0' <= c && c <= '9' || 'a' <= c && c <= 'f')
	}
	if !ok {
		return topology.Invalidf("shas", "%.50q is no SHA-1; write 40 lower case hexadecimal digits", sha)
	}
	return nil
}
