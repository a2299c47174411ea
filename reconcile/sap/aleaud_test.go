package sap

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func readSample(t *testing.T, name string) Answer {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadALEAUD(bytes.NewReader(b))
	if err != nil || len(got) != 1 {
		t.Fatalf("%s: %d answers, %v", name, len(got), err)
	}
	return got[0]
}

func TestALEAUDReadsBothSamples(t *testing.T) {
	at := time.Date(2026, time.March, 17, 7, 12, 7, 0, time.UTC)
	posted := Answer{
		DocNum: "0000000000260316", At: at, Status: "53", Severity: "S", Class: "RW", Number: "605",
		Text: "Document posted successfully: BKPFF", System: "PRDCLNT100", SAPDocNum: "0000000004711234",
		ObjectKey: "BKPFF010000001210002026  PRDCLNT100", Document: "0100000012", Company: "1000", FiscalYear: 2026,
	}
	if got := readSample(t, "testdata/aleaud01.posted.xml"); got != posted || got.Outcome() != Posted {
		t.Errorf("posted: %+v\nwant    %+v", got, posted)
	}
	rejected := Answer{
		DocNum: "0000000000260316", At: at, Status: "51", Severity: "E", Class: "RW", Number: "609",
		Text: "Error in document: BKPFF", System: "PRDCLNT100", SAPDocNum: "0000000004711234",
	}
	if got := readSample(t, "testdata/aleaud01.error.xml"); got != rejected || got.Outcome() != Rejected {
		t.Errorf("rejected: %+v\nwant      %+v", got, rejected)
	}
}

// aleaud wraps states into a message of a time of day.
func aleaud(clockTime string, states ...string) string {
	return fmt.Sprintf(`<IDOC BEGIN="1"><EDI_DC40 SEGMENT="1"><CREDAT>20260317</CREDAT><CRETIM>%s</CRETIM></EDI_DC40>`+
		`<E1ADHDR SEGMENT="1"><MESTYP_LNG>ACC_DOCUMENT</MESTYP_LNG>%s</E1ADHDR></IDOC>`, clockTime, strings.Join(states, ""))
}

func state(fields string) string { return `<E1STATE SEGMENT="1">` + fields + `</E1STATE>` }

func read(t *testing.T, idocs ...string) ([]Answer, error) {
	t.Helper()
	return ReadALEAUD(strings.NewReader("<ALEAUD01>" + strings.Join(idocs, "") + "</ALEAUD01>"))
}

func TestALEAUD(t *testing.T) {
	t.Run("several states and several messages in one file", func(t *testing.T) {
		got, err := read(t,
			aleaud("010000",
				state(`<DOCNUM>0000000000000001</DOCNUM><STATUS>51</STATUS><STATXT>wrong</STATXT><E1PRTOB><DOCNUM>7</DOCNUM></E1PRTOB>`),
				state(`<DOCNUM>0000000000000002</DOCNUM><STATUS>53</STATUS>`)),
			aleaud("020000", state(`<DOCNUM>0000000000000001</DOCNUM><STATUS>53</STATUS>`)))
		if err != nil || len(got) != 3 {
			t.Fatalf("%d answers, %v", len(got), err)
		}
		if got[1].SAPDocNum != "" || got[1].Text != "" || got[1].DocNum != "0000000000000002" {
			t.Errorf("the second state has fields of the first: %+v", got[1])
		}
		if got[2].At.Sub(got[0].At) != time.Hour {
			t.Errorf("times %s and %s, want an hour apart", got[0].At, got[2].At)
		}
	})
	t.Run("a document that is not ours is handed out, not refused", func(t *testing.T) {
		got, err := read(t, aleaud("010000", state(`<DOCNUM>9999999999999999</DOCNUM><STATUS>53</STATUS>`)))
		if err != nil || len(got) != 1 || got[0].DocNum != "9999999999999999" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("another message type is left out", func(t *testing.T) {
		other := strings.Replace(aleaud("010000", state(`<DOCNUM>1</DOCNUM><STATUS>53</STATUS>`)), "ACC_DOCUMENT", "DEBMAS", 1)
		if got, err := read(t, other); err != nil || len(got) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("parameters fill numbered and bare placeholders, long ones first", func(t *testing.T) {
		got, err := read(t, aleaud("010000", state(`<DOCNUM>1</DOCNUM><STATUS>51</STATUS><STATXT>G/L account &amp;2 in &amp;1, &amp; &amp;4</STATXT>`+
			`<STAPA1>YCO</STAPA1><STAPA1_LNG>YCOA</STAPA1_LNG><STAPA2>412000</STAPA2>`)))
		if err != nil || got[0].Text != "G/L account 412000 in YCOA, YCOA" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("a rejected document has no number even if a key is there", func(t *testing.T) {
		got, err := read(t, aleaud("010000", state(`<DOCNUM>1</DOCNUM><STATUS>51</STATUS><E1PRTOB><OBJKEY>BKPFF010000001210002026</OBJKEY></E1PRTOB>`)))
		if err != nil || got[0].Document != "" || got[0].ObjectKey == "" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	for name, doc := range map[string]string{
		"another root":       `<ALEAUD02></ALEAUD02>`,
		"no state":           `<ALEAUD01></ALEAUD01>`,
		"no time":            "<ALEAUD01>" + aleaud("", state(`<DOCNUM>1</DOCNUM><STATUS>53</STATUS>`)) + "</ALEAUD01>",
		"a status in words":  "<ALEAUD01>" + aleaud("010000", state(`<DOCNUM>1</DOCNUM><STATUS>OK</STATUS>`)) + "</ALEAUD01>",
		"no document":        "<ALEAUD01>" + aleaud("010000", state(`<STATUS>53</STATUS>`)) + "</ALEAUD01>",
		"a cut file":         "<ALEAUD01>" + aleaud("010000", state(`<DOCNUM>1</DOCNUM><STATUS>53</STATUS>`)),
		"a document type":    `<!DOCTYPE x []><ALEAUD01/>`,
		"not XML":            "EDI_DC40  100",
		"nothing whatsoever": "",
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			if got, err := ReadALEAUD(strings.NewReader(doc)); err == nil || got != nil {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestPostedIsFinalAndOtherwiseTheLatestCounts(t *testing.T) {
	at := func(status string, hour int) Answer {
		return Answer{Status: status, At: time.Date(2026, 3, 17, hour, 0, 0, 0, time.UTC)}
	}
	for name, tt := range map[string]struct {
		before, after Answer
		want          bool
	}{
		"51 then 53":               {at("51", 1), at("53", 2), true},
		"53 then 51":               {at("53", 1), at("51", 2), false},
		"53 arrives late":          {at("51", 2), at("53", 1), true},
		"51 then 68":               {at("51", 1), at("68", 2), true},
		"68 then a 51 from before": {at("68", 2), at("51", 1), false},
		"64 then 51":               {at("64", 1), at("51", 2), true},
		"an answer twice":          {at("51", 1), at("51", 1), true},
	} {
		if got := tt.after.Supersedes(tt.before); got != tt.want {
			t.Errorf("%s: supersedes %v, want %v", name, got, tt.want)
		}
	}
}

// Whatever the bytes, reading does not panic, and every answer names a document
// and a status.
func FuzzALEAUD(f *testing.F) {
	for _, name := range []string{"testdata/aleaud01.posted.xml", "testdata/aleaud01.error.xml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		answers, err := ReadALEAUD(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, a := range answers {
			if a.DocNum == "" || len(a.Status) != 2 || a.At.IsZero() {
				t.Fatalf("accepted: %+v", a)
			}
		}
	})
}
