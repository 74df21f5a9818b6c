package grpcapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/basalt-redis/basalt/configserver/store"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (s eventService) ListEvents(ctx context.Context, req *basaltv1.ListEventsRequest) (*basaltv1.ListEventsResponse, error) {
	name := req.GetCluster()
	if err := s.clusterExists(ctx, name); err != nil {
		return nil, err
	}
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = 100
	}
	wanted := func(e *basaltv1.Event) bool {
		at := e.GetTime().AsTime()
		return concerns(e, req.GetShard(), req.GetSeverity()) &&
			(req.GetSince() == nil || !at.Before(req.GetSince().AsTime())) && (req.GetUntil() == nil || at.Before(req.GetUntil().AsTime()))
	}
	read := min(limit, store.KeepEvents)
	if req.GetShard() != "" || req.GetSeverity() != 0 || req.GetSince() != nil || req.GetUntil() != nil {
		read = store.KeepEvents // the newest ones of those that are wanted
	}
	events, err := s.cfg.Store.Events(ctx, name, req.GetAfter(), read)
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	out := &basaltv1.ListEventsResponse{}
	for i := range events {
		if e := eventToProto(&events[i]); wanted(e) {
			out.Events = append(out.Events, e)
		}
	}
	out.Events = out.Events[max(0, len(out.Events)-limit):]
	return out, nil
}

// concerns tells if an event is of a shard, unless that is empty, and as severe.
func concerns(e *basaltv1.Event, shard string, severity basaltv1.Severity) bool {
	return (shard == "" || e.GetShard() == shard) && e.GetSeverity() >= severity
}

func (s eventService) WatchEvents(req *basaltv1.WatchEventsRequest, stream grpc.ServerStreamingServer[basaltv1.Event]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	name := req.GetCluster()
	if err := s.clusterExists(ctx, name); err != nil {
		return err
	}
	events, err := s.cfg.Store.WatchEvents(ctx, name, req.GetAfter())
	if err != nil {
		return toStatus(aboutCluster(name, err))
	}
	for event := range events {
		e := eventToProto(&event)
		if !concerns(e, req.GetShard(), req.GetSeverity()) {
			continue
		}
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	if err := stream.Context().Err(); err != nil {
		return toStatus(err)
	}
	return status.Error(codes.Unavailable, "the stream of events ended at this configserver; watch again after the last sequence number seen")
}

func (s *Server) clusterExists(ctx context.Context, name string) error {
	if err := checkCluster("cluster", name); err != nil {
		return toStatus(err)
	}
	if _, err := s.cfg.Store.Cluster(ctx, name); err != nil {
		return toStatus(aboutCluster(name, err))
	}
	return nil
}
