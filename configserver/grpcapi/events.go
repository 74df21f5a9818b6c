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
	events, err := s.cfg.Store.Events(ctx, name, req.GetAfter(), min(limit, store.KeepEvents))
	if err != nil {
		return nil, toStatus(aboutCluster(name, err))
	}
	out := &basaltv1.ListEventsResponse{}
	for i := range events {
		out.Events = append(out.Events, eventToProto(&events[i]))
	}
	return out, nil
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
		if err := stream.Send(eventToProto(&event)); err != nil {
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
