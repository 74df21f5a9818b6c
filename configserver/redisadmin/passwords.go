package redisadmin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/basalt-redis/basalt/configserver/credentials"
)

// Generation is the highest generation of proxies among ACL users, 0 for none.
func Generation(users []string) (highest uint64) {
	for _, user := range users {
		if generation, ok := credentials.GenerationOf(user); ok {
			highest = max(highest, generation)
		}
	}
	return highest
}

// HasPassword tells if a user may log in with a password.
func (c *Conn) HasPassword(ctx context.Context, user, password string) (bool, error) {
	fields, err := c.conn.Do(ctx, "ACL", "GETUSER", user).Slice()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: ACL GETUSER: %w", c.Address, err)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		if sums, ok := fields[i+1].([]any); ok && fields[i] == "passwords" {
			return slices.Contains(sums, any(hash(password))), nil
		}
	}
	return false, nil
}
