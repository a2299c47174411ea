// validate.mjs FILE: checks an OpenAPI document against the specification's schema.
import { Validator } from "@seriousme/openapi-schema-validator";

const validator = new Validator();
const result = await validator.validate(process.argv[2]);
if (!result.valid || validator.version !== "3.1") {
  console.log("version", validator.version, JSON.stringify(result.errors, null, 2));
  process.exit(1);
}
