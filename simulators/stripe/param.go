package stripe

import (
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// A param is one node of the form-encoded tree a request carries:
// line_items[0][price_data][currency]=cad. Every member that an endpoint knows is
// asked for by name; done refuses the rest, as Stripe does.
type param struct {
	name  string // as it is written in the request
	value string
	leaf  bool
	kids  map[string]*param
	asked bool
	all   *findings // of the whole request
}

// findings is the first thing found wrong with a request.
type findings struct{ err *apiError }

func (f *findings) add(e *apiError) {
	if f.err == nil {
		f.err = e
	}
}

const (
	maxParams = 1000 // in one request
	maxDepth  = 8
)

var errTooMany = errors.New("too many parameters")

func parseParams(v url.Values) (*param, error) {
	if len(v) > maxParams {
		return nil, errTooMany
	}
	root := &param{kids: map[string]*param{}, all: &findings{}}
	for _, key := range sortedKeys(v) {
		for i, value := range v[key] {
			if err := root.set(key, value, i); err != nil {
				return nil, err
			}
		}
	}
	return root, nil
}

func sortedKeys(v url.Values) []string {
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// set files one value. n is its place among the values of the same key: a[]=x&a[]=y.
func (p *param) set(key, value string, n int) error {
	first, rest, nested := strings.Cut(key, "[")
	parts := []string{first}
	if nested {
		parts = append(parts, strings.Split(strings.TrimSuffix(rest, "]"), "][")...)
	}
	if len(parts) > maxDepth {
		return errTooMany
	}
	node := p
	for i, part := range parts {
		name := part
		if part == "" {
			part = strconv.Itoa(n)
		}
		if i > 0 {
			name = node.name + "[" + part + "]"
		}
		kid, there := node.kids[part]
		if !there {
			kid = &param{name: name, kids: map[string]*param{}, all: p.all}
			node.kids[part] = kid
		}
		node = kid
	}
	node.value, node.leaf = value, true
	return nil
}

// child returns a member, never nil: an absent one is an empty param.
func (p *param) child(key string) *param {
	if k, ok := p.kids[key]; ok {
		k.asked = true
		return k
	}
	name := key
	if p.name != "" {
		name = p.name + "[" + key + "]"
	}
	return &param{name: name, all: p.all}
}

func (p *param) given() bool { return p.leaf || len(p.kids) > 0 }

// text returns a string member, "" when absent. An empty value is refused: Stripe
// reads it as "unset", which nothing here may be.
func (p *param) text(key string, maxLen int) string {
	c := p.child(key)
	switch {
	case len(c.kids) > 0:
		p.all.add(badParam("", c.name, "Invalid string: {...}"))
	case c.leaf && c.value == "":
		p.all.add(badParam("parameter_invalid_empty", c.name, "You passed an empty string for '%s'. We assume empty values are an attempt to unset a parameter; however '%s' cannot be unset. You should remove '%s' from your request or supply a non-empty value.", c.name, c.name, c.name))
	case len(c.value) > maxLen:
		p.all.add(badParam("", c.name, "Invalid string: %s; must be at most %d characters", clip(c.value), maxLen))
	}
	return c.value
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// need is text for a member that must be there.
func (p *param) need(key string, maxLen int) string {
	if c := p.child(key); !c.given() {
		p.all.add(badParam("parameter_missing", c.name, "Missing required param: %s.", c.name))
	}
	return p.text(key, maxLen)
}

// oneOf returns a member that has few values; the first is the default.
func (p *param) oneOf(key string, values ...string) string {
	v := p.text(key, 100)
	if v == "" {
		return values[0]
	}
	if !slices.Contains(values, v) {
		p.all.add(badParam("", p.child(key).name, "Invalid %s: must be one of %s", p.child(key).name, strings.Join(values, ", ")))
	}
	return v
}

// number returns an integer member and whether it was given.
func (p *param) number(key string) (int64, bool) {
	c := p.child(key)
	if !c.given() {
		return 0, false
	}
	n, err := strconv.ParseInt(c.value, 10, 64)
	if err != nil {
		p.all.add(badParam("parameter_invalid_integer", c.name, "Invalid integer: %s", clip(c.value)))
	}
	return n, true
}

// needNumber is number for a member that must be there.
func (p *param) needNumber(key string) int64 {
	n, given := p.number(key)
	if !given {
		c := p.child(key)
		p.all.add(badParam("parameter_missing", c.name, "Missing required param: %s.", c.name))
	}
	return n
}

// flag returns a boolean member, false when absent.
func (p *param) flag(key string) (value, given bool) {
	c := p.child(key)
	if !c.given() {
		return false, false
	}
	if c.value != "true" && c.value != "false" {
		p.all.add(badParam("", c.name, "Invalid boolean: %s", clip(c.value)))
	}
	return c.value == "true", true
}

// items returns the members of an array in the order of their indices.
func (p *param) items(key string) []*param {
	c := p.child(key)
	var index []int
	for k := range c.kids {
		n, err := strconv.Atoi(k)
		if err != nil || n < 0 {
			p.all.add(badParam("", c.name, "Invalid array"))
			return nil
		}
		index = append(index, n)
	}
	slices.Sort(index)
	var out []*param
	for _, n := range index {
		out = append(out, c.child(strconv.Itoa(n)))
	}
	return out
}

// texts returns an array of strings.
func (p *param) texts(key string) []string {
	var out []string
	for _, item := range p.items(key) {
		if !item.leaf || item.value == "" {
			p.all.add(badParam("", item.name, "Invalid string"))
			continue
		}
		out = append(out, item.value)
	}
	return out
}

// Limits of metadata, from Stripe's documentation.
const (
	maxMetadata      = 50
	maxMetadataKey   = 40
	maxMetadataValue = 500
)

// metadata returns a map of strings, never nil.
func (p *param) metadata(key string) map[string]string {
	c := p.child(key)
	out := map[string]string{}
	for k, v := range c.kids {
		v.asked = true
		if len(v.kids) > 0 || len(k) > maxMetadataKey || len(v.value) > maxMetadataValue {
			p.all.add(badParam("", v.name, "Metadata keys can have up to %d characters and values up to %d", maxMetadataKey, maxMetadataValue))
			continue
		}
		if v.value != "" { // an empty value removes the key
			out[k] = v.value
		}
	}
	if len(out) > maxMetadata {
		p.all.add(badParam("", c.name, "Metadata can have up to %d keys", maxMetadata))
	}
	return out
}

// done returns what was found wrong, or refuses parameters nobody asked for.
func (p *param) done() error {
	var unknown []string
	p.unasked(&unknown)
	slices.Sort(unknown)
	switch {
	case len(unknown) == 1:
		return badParam("parameter_unknown", unknown[0], "Received unknown parameter: %s", unknown[0])
	case len(unknown) > 1:
		return badParam("parameter_unknown", unknown[0], "Received unknown parameters: %s", strings.Join(unknown, ", "))
	case p.all.err != nil:
		return p.all.err
	}
	return nil
}

func (p *param) unasked(out *[]string) {
	for _, k := range p.kids {
		if !k.asked {
			*out = append(*out, k.name)
			continue
		}
		k.unasked(out)
	}
}
