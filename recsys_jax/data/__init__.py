"""Files to arrays: values, tables, schema, validation, dataset, features, splits."""
