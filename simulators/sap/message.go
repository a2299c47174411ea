package sap

import (
	"fmt"
	"strings"
)

// message is one SAP message: class, number, and text with placeholders.
type message struct {
	Type   string   `json:"type"` // S, E
	Class  string   `json:"class"`
	Number string   `json:"number"`
	Text   string   `json:"text"` // at most 70 characters, &1 to &4
	Params []string `json:"params,omitempty"`
}

// String is the text with its parameters, as a person reads it.
func (m message) String() string {
	t := m.Text
	for i, p := range m.Params {
		t = strings.ReplaceAll(t, fmt.Sprintf("&%d", i+1), p)
	}
	return t
}

// Lengths of STATXT and of STAPA1_LNG to STAPA4_LNG.
const (
	maxText  = 70
	maxParam = 50
)

// messageText are the messages of this simulator. Class E0 is the IDoc interface,
// RW the accounting interface, F5 document posting, ZG this simulator.
var messageText = map[string]string{
	"RW 605": "Document posted successfully: &1 &2 &3",
	"RW 609": "Error in document: &1 &2 &3",
	"RW 022": "Balance in currency &1, currency type &2: &3, not zero",
	"F5 727": "&1 items, more than the &2 that a document can have",

	"E0 901": "Record &1 has &2 characters, &3 are required",
	"E0 902": "Record &1 has the character &2, which is none of ISO 8859-1",
	"E0 903": "Control record: &1 is '&2', required is &3",
	"E0 904": "The file ends in the middle of record &1",
	"E0 911": "Record &1: segment &2 is not known to the basic type",
	"E0 912": "Record &1: segment &2 does not follow segment &3",
	"E0 913": "Record &1: &2 is '&3', required is &4",
	"E0 914": "Segment &1 occurs &2 times, at least &3 and at most &4 are allowed",

	"ZG 921": "Segment &1: &2 has the value '&3', which is no &4",
	"ZG 922": "Segment &1: there is text behind the last known field",
	"ZG 923": "Field &1 of the header is required",
	"ZG 924": "Field &1 of the header is '&2', required is &3",
	"ZG 925": "Company code &1 is not defined",
	"ZG 926": "Document type &1 is not defined",
	"ZG 927": "Posting period &1 &2 is not open",
	"ZG 931": "Item &1: G/L account &2 is not defined in the chart of accounts",
	"ZG 932": "Item &1: account &2 requires exactly one cost object, &3 are given",
	"ZG 933": "Item &1: account &2 takes no cost object",
	"ZG 934": "Item &1: &2 &3 does not exist",
	"ZG 935": "Item &1: account &2 is posted to by tax items only",
	"ZG 936": "Item &1: account &2 is no tax account",
	"ZG 937": "Item &1: tax code &2 is not defined",
	"ZG 938": "Item number &1 occurs more than once",
	"ZG 939": "Item &1 has &2 amounts of currency type &3, one is required",
	"ZG 940": "An amount is given for item &1, which does not exist",
	"ZG 941": "Item &1: currency &2 &3 is not supported",
	"ZG 942": "Item &1: the amount is zero",
	"ZG 951": "Tax code &1: base &2 differs from the items' total &3",
	"ZG 952": "Tax code &1: tax &2 on base &3 differs from &4 expected",
	"ZG 953": "Tax code &1: items are taxed but there is no tax item",

	"ZG 961": "Refused as told on the control page",
	"ZG 962": "No further processing: closed by a person",
}

// msg makes a message by its class and number.
func msg(key string, params ...any) message {
	text, ok := messageText[key]
	if !ok {
		panic("no message " + key) // a slip in this package
	}
	m := message{Type: "E", Text: text}
	m.Class, m.Number, _ = strings.Cut(key, " ")
	for _, p := range params {
		s := []rune(fmt.Sprint(p))
		m.Params = append(m.Params, string(s[:min(len(s), maxParam)]))
	}
	return m
}
