package jwtauthn

import (
	"container/list"
	"sync"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/lateen-mesh/lateen/jwt"
)

const (
	defaultCached    = 100
	maxCached        = 1 << 16
	defaultTokenSize = 4096
)

// A cache remembers tokens that were verified, the last used longest. A nil cache remembers
// nothing. It is safe for concurrent use.
type cache struct {
	size, token int

	mu    sync.Mutex
	by    map[string]*list.Element
	order *list.List // of entries, the last used first
}

type entry struct {
	text  string
	token *jwt.Token
	keys  *jwt.Keys // that it was verified with
}

func newCache(c *jwtv3.JwtCacheConfig) *cache {
	if c == nil {
		return nil
	}
	out := &cache{size: int(min(c.GetJwtCacheSize(), maxCached)), token: int(c.GetJwtMaxTokenSize()), by: map[string]*list.Element{}, order: list.New()}
	if out.size == 0 {
		out.size = defaultCached
	}
	if out.token == 0 {
		out.token = defaultTokenSize
	}
	return out
}

// get is a token that was verified with keys, nil if it is not known.
func (c *cache) get(text string, keys *jwt.Keys) *jwt.Token {
	if c == nil || keys == nil || len(text) > c.token {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[text]
	if e == nil {
		return nil
	}
	known := e.Value.(*entry)
	if known.keys != keys {
		c.drop(e)
		return nil
	}
	c.order.MoveToFront(e)
	return known.token
}

func (c *cache) put(text string, t *jwt.Token, keys *jwt.Keys) {
	if c == nil || len(text) > c.token {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.by[text]; e != nil {
		c.drop(e)
	}
	c.by[text] = c.order.PushFront(&entry{text, t, keys})
	if c.order.Len() > c.size {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	delete(c.by, c.order.Remove(e).(*entry).text)
}
