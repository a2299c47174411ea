package admin

import (
	"errors"
	"strings"

	"guichet/api/web"
	"guichet/department"
	"guichet/identity/provider"
	"guichet/internal/approval"
)

func messages(keys ...string) []web.Message {
	list := make([]web.Message, len(keys))
	for i, key := range keys {
		list[i] = say(key)
	}
	return list
}

// who names an actor: a member by name, the rest as they are.
func who(names map[string]string, actor string) cell {
	if name, ok := names[actor]; ok {
		return text(name)
	}
	if actor == "" {
		return word("none")
	}
	return code(actor)
}

// lines is a textarea as a list: one entry a line, empty lines left out.
func lines(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

func options(chosen string, values []string, label func(string) web.Message) []option {
	list := make([]option, len(values))
	for i, v := range values {
		list[i] = option{v, label(v), v == chosen}
	}
	return list
}

// isMissing reports whether what was asked for is not there, or not for the reader.
func isMissing(err error) bool {
	return errors.Is(err, approval.ErrNotFound) || errors.Is(err, provider.ErrNotFound) || errors.Is(err, department.ErrNotFound)
}
